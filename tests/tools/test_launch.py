"""The launcher's own ways to end; tests/pipeline/test_hosts.py has a whole run of it."""

import signal
import subprocess
import sys
import time

import pytest

from tfopt import preemption

LAUNCH = sys.executable, "-m", "tfopt", "launch"


def test_bad_input_of_the_run_ends_it_with_the_runs_code():
    words = "--workers=2", "--", "--config.batch_size=0"
    done = subprocess.run([*LAUNCH, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    for index in range(2):
        said = f"[worker {index}] tfopt: config.batch_size: expected a number of at least 1"
        assert said in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_flags_of_the_run_that_stand_before_the_dashes_are_named():
    words = "--workers=3", "--config=digits"
    done = subprocess.run([*LAUNCH, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.endswith(
        "received '--config=digits' before --; write tfopt launch --workers=3 -- --config=digits\n"
    )


def test_no_worker_is_refused():
    done = subprocess.run([*LAUNCH, "--workers=0"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "tfopt: --workers: expected at least 1, received 0.\n"


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_every_worker(tmp_path, sign):
    words = "--workers=2", "--", "--config=digits", f"--workdir={tmp_path}"
    process = subprocess.Popen([*LAUNCH, *words], stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not (tmp_path / "experiment.json").exists():
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(sign)
    said, _ = process.communicate(timeout=60)
    codes = {signal.SIGINT: {1, 130}, signal.SIGTERM: {preemption.EXIT_CODE}}
    assert process.returncode in codes[sign], said
    assert "the same command again goes on from here" in said

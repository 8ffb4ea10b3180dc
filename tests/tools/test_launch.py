"""The launcher's own ways to end; tests/pipeline/test_hosts.py has a whole run of it."""

import subprocess
import sys

LAUNCH = sys.executable, "-m", "tfopt", "launch"


def test_bad_input_of_the_run_ends_it_with_the_runs_code():
    words = "--workers=2", "--", "--config.batch_size=0"
    done = subprocess.run([*LAUNCH, *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    for index in range(2):
        said = f"[worker {index}] tfopt: config.batch_size: expected a number of at least 1"
        assert said in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_no_worker_is_refused():
    done = subprocess.run([*LAUNCH, "--workers=0"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "tfopt: --workers: expected at least 1, received 0.\n"

"""Two processes with a TF_CONFIG each do what one does, also where one of them was killed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.pipeline.conftest import FLAGS
from tests.pipeline.test_resume import weights
from tfopt.tflite import flatbuffer
from tfopt.tools.launch import environment, free_ports

SCRIPT = Path(__file__).parent / "hosts.py"
# What a RunError says is read here; ten seconds of it are the heartbeat's.
NOTICED_SECONDS = 40


class Hosts:
    """Two processes that run the tiny experiment together in `workdir`."""

    def __init__(self, workdir, logs):
        addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
        self.logs = [logs.with_suffix(f".{index}") for index in range(2)]
        self.processes = []
        for index, log in enumerate(self.logs):
            with log.open("w") as output:
                self.processes.append(
                    subprocess.Popen(
                        [sys.executable, SCRIPT, workdir, *FLAGS],
                        env=environment(index, addresses),
                        stdout=output,
                        stderr=subprocess.STDOUT,
                    )
                )

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for process in self.processes:
            process.kill()
            process.wait()

    def said(self):
        return [log.read_text() for log in self.logs]


def started(folder, *words):
    with (folder / "output").open("w") as output:
        command = [sys.executable, "-m", "tfopt", *words, *FLAGS, f"--workdir={folder / 'run'}"]
        return subprocess.Popen(command, stdout=output, stderr=output)


def kernels(content):
    """The numbers that are stored in a file, codes where they are rounded, by operator."""
    found = flatbuffer.read(content).operators
    return {each.label: each.kernel.values.astype(np.float32) for each in found if each.kernel}


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """Two runs that nothing interrupts: of two hosts, and of one host with two replicas."""
    folders = [tmp_path_factory.mktemp(name) for name in ("launched", "mirrored")]
    processes = [
        started(folders[0], "launch", "--workers=2", "--"),
        started(folders[1], "--config.strategy=mirrored", "--config.replicas=2"),
    ]
    yield processes, folders
    for process in processes:
        process.terminate()
        process.wait()


@pytest.fixture(scope="module")
def uninterrupted(others, killed):
    """The workdirs and the output of both, which ran beside the killed one."""
    for process, folder in zip(*others, strict=True):
        assert process.wait(timeout=600) == 0, (folder / "output").read_text()[-2000:]
    launched, mirrored = others[1]
    return launched / "run", mirrored / "run", (launched / "output").read_text()


@pytest.fixture(scope="module")
def killed(others, tmp_path_factory):
    """A workdir, and what two workers said: both were killed, then started again.

    First the chief, which leads the others, in the second stage; then worker 1 in the third.
    """
    folder = tmp_path_factory.mktemp("hosts")
    workdir, began = folder / "run", time.monotonic()
    with Hosts(workdir, folder / "first") as hosts:
        while not (workdir / "prune/epochs/epoch_0001").exists():
            assert time.monotonic() < began + 600 and hosts.processes[1].poll() is None, (
                hosts.said()
            )
            time.sleep(0.01)
        hosts.processes[0].send_signal(signal.SIGKILL)
        ends = [(hosts.processes[1].wait(timeout=NOTICED_SECONDS), hosts.said()[1])]
    with Hosts(workdir, folder / "again") as hosts:
        while not (workdir / "quantize/epochs/epoch_0001").exists():
            assert hosts.processes[1].poll() is None, hosts.said()
            time.sleep(0.01)
        hosts.processes[1].send_signal(signal.SIGKILL)
        ends.append((hosts.processes[0].wait(timeout=NOTICED_SECONDS), hosts.said()[0]))
    with Hosts(workdir, folder / "second") as hosts:
        codes = [process.wait(timeout=600) for process in hosts.processes]
        return workdir, ends, (codes, hosts.said())


def test_who_is_left_stops_with_one_sentence(killed):
    _, ends, _ = killed
    for lost, (code, said) in enumerate(ends):
        assert code == 1 and "Traceback" not in said
        assert f"tfopt: worker {lost} doesn't answer any more: look at its log" in said


def test_started_again_they_go_on_and_one_of_them_writes(killed):
    workdir, _, (codes, (chief, other)) = killed
    assert codes == [0, 0], chief[-2000:] + other[-2000:]
    assert "stage prune: was finished before" in chief and "goes on after epoch" in chief
    assert "artifact" not in other and "WROTE" not in other
    assert (workdir / "report.html").exists() and str(workdir / "report.html") in chief


@pytest.mark.parametrize("stage", ["train", "prune", "quantize"])
def test_the_result_is_the_uninterrupted_one(killed, uninterrupted, stage):
    resumed, launched = (weights(at / stage / "model.h5") for at in (killed[0], uninterrupted[0]))
    assert any(name.endswith("kernel:0") for name in resumed)
    for name, values in resumed.items():
        np.testing.assert_array_equal(values, launched[name], err_msg=name)


def test_two_hosts_do_what_two_replicas_of_one_do(uninterrupted):
    launched, mirrored, _ = uninterrupted
    # What is left is the order of sums, which decides near ties among the weights to prune, and
    # from the second epoch on these are other weights.
    for stage, epochs, tolerance in (("train", 3, 1e-5), ("prune", 1, 1e-3)):
        two, one = (
            json.loads((at / stage / "stage.json").read_text())["history"][:epochs]
            for at in (launched, mirrored)
        )
        for mine, other in zip(two, one, strict=True):
            for name in {"loss", "val_loss", "accuracy", "test_loss"} & set(mine):
                assert mine[name] == pytest.approx(other[name], rel=tolerance), name
    two, one = (json.loads((at / "report.json").read_text())["rows"] for at in (launched, mirrored))
    for mine, other in zip(two, one, strict=True):
        assert (mine["stage"], mine["variant"]) == (other["stage"], other["variant"])
        # The metadata have the accuracy, of which one may have more digits.
        assert mine["bytes"] == pytest.approx(other["bytes"], abs=16)
        assert mine["sparsity"] == pytest.approx(other["sparsity"], abs=0.005)
        assert mine["accuracy"] == pytest.approx(other["accuracy"], abs=0.05)


@pytest.mark.parametrize(("variant", "tolerance"), [("float32", 1e-4), ("int8", 1)])
def test_so_are_the_kernels_in_the_files(uninterrupted, variant, tolerance):
    files = (at / f"artifacts/train_{variant}.tflite" for at in uninterrupted[:2])
    two, one = (kernels(file.read_bytes()) for file in files)
    assert len(two) == 4 and two.keys() == one.keys()
    for name, values in two.items():
        np.testing.assert_allclose(values, one[name], rtol=0, atol=tolerance, err_msg=name)


def test_launch_says_whose_line_it_is(uninterrupted):
    *_, said = uninterrupted
    assert "[worker 0] report " in said and "[worker 1] done; the chief has the report." in said
    assert said.count("Test Accuracy") == 3  # not once by worker

"""kill -9 at any moment, and the same command again ends in the same bytes."""

import json
import os
import signal
import subprocess
import time

import h5py
import numpy as np
import pytest

from tests.pipeline.conftest import command, finished

STAGES = ("train", "prune", "quantize")


def killed_after(workdir, sign):
    """Start the run, kill it as soon as the file or folder `sign` is there."""
    with subprocess.Popen(
        command(workdir), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 120
        while not (workdir / sign).exists():
            assert process.poll() is None, f"the run ended before {sign} was there"
            assert time.monotonic() < deadline, f"no {sign} within two minutes"
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL


def weights(path):
    found = {}
    with h5py.File(path) as file:
        file.visititems(
            lambda name, item: found.update(
                {name: item[()]} if isinstance(item, h5py.Dataset) else {}
            )
        )
    return found


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("uninterrupted")
    result = finished(workdir)
    assert result.returncode == 0, result.stderr[-2000:]
    return workdir


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory):
    """A run that was killed in every stage, with the output of the last start."""
    workdir = tmp_path_factory.mktemp("interrupted")
    for stage in STAGES:
        killed_after(workdir, f"{stage}/epochs/epoch_0001")
        assert not (workdir / stage / "stage.json").exists()
    result = finished(workdir)
    assert result.returncode == 0, result.stderr[-2000:]
    return workdir, result.stdout


def test_every_weight_is_equal_to_the_bit(uninterrupted, interrupted):
    for stage in STAGES:
        expected = weights(uninterrupted / stage / "model.h5")
        found = weights(interrupted[0] / stage / "model.h5")
        assert expected.keys() == found.keys()
        assert all(np.array_equal(found[name], value) for name, value in expected.items())


def test_every_artifact_is_equal_to_the_byte(uninterrupted, interrupted):
    files = sorted(path.name for path in (uninterrupted / "artifacts").iterdir())
    assert len(files) == 9
    for name in files:
        expected = (uninterrupted / "artifacts" / name).read_bytes()
        assert (interrupted[0] / "artifacts" / name).read_bytes() == expected, name


def test_goes_on_from_the_last_finished_epoch(interrupted):
    _, output = interrupted
    assert "Epoch 1/3" not in output, "the finished epoch was trained again"
    assert output.count("Epoch 3/3") == 1, "a finished stage was trained again"


def test_history_is_whole(interrupted):
    for stage in STAGES:
        history = json.loads((interrupted[0] / stage / "stage.json").read_text())["history"]
        assert [set(epoch) >= {"loss", "val_accuracy"} for epoch in history] == [True] * 3


def test_no_checkpoint_and_no_half_file_is_left(interrupted):
    left = [
        path
        for path in interrupted[0].rglob("*")
        if "epoch" in path.name or path.name.startswith(".writing")
    ]
    assert not left

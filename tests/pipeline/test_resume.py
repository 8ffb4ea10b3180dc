"""kill -9 at any moment, and the same command again ends in the same bytes."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest

from tests.loggers import read
from tests.pipeline.conftest import FLAGS
from tfopt import preemption
from tfopt.export import Int8
from tfopt.pipeline import run
from tfopt.stages import CorrectBias, Equalize, OneShotPrune, Stage

STAGES = ("train", "prune", "quantize")
ENDED = Path(__file__).parent / "ended.py"


def killed_after(workdir, sign, by=signal.SIGKILL):
    """Start the run, end it as soon as the file or folder `sign` is there; return its errors."""
    command = [sys.executable, "-m", "tfopt", *FLAGS, f"--workdir={workdir}"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while not (workdir / sign).exists():
            assert process.poll() is None, f"the run ended before {sign} was there"
            assert time.monotonic() < deadline, f"no {sign} within two minutes"
            time.sleep(0.005)
        os.kill(process.pid, by)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == (-by if by == signal.SIGKILL else preemption.EXIT_CODE), errors
    return errors


def ended(workdir, way):
    """Start the run so that it ends in the given way of ended.py."""
    command = [sys.executable, ENDED, way, *FLAGS, f"--workdir={workdir}"]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def left(workdir):
    return sorted(
        str(path.relative_to(workdir))
        for path in workdir.rglob("*")
        if path.parent.name == "epochs" or path.name.startswith(".writing")
    )


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
def full_disk(started, tmp_path_factory):
    """What a run said that was killed twice, and then found the disk full."""
    workdir = tmp_path_factory.mktemp("interrupted")
    killed_after(workdir, "train/epochs/epoch_0001")
    assert not (workdir / "train" / "stage.json").exists()
    assert ended(workdir, "kill=prune/epochs/epoch_0002").returncode == -signal.SIGKILL
    assert left(workdir) == [
        f"prune/epochs/{name}" for name in (".writing_epoch_0002", "epoch_0001")
    ]
    # Room for an epoch, and none for the model.
    return ended(workdir, "full=30000"), left(workdir), workdir


@pytest.fixture(scope="module")
def interrupted(full_disk):
    """The workdir and the last output of a run that was ended in every stage."""
    workdir = full_disk[2]
    assert ended(workdir, "kill=prune/stage.json").returncode == -signal.SIGKILL
    assert (workdir / "prune" / "model.h5").exists()
    errors = killed_after(workdir, "quantize/epochs/epoch_0001", by=signal.SIGTERM)
    assert not (workdir / "quantize" / "stage.json").exists()
    assert errors.splitlines()[-1] == (
        "tfopt: stopped by SIGTERM; the same command again goes on from here."
    )
    result = ended(workdir, "kill=nothing")
    assert result.returncode == 0, result.stderr[-2000:]
    return workdir, result.stdout


def test_a_full_disk_is_one_sentence_and_leaves_the_last_good_state(full_disk):
    result, kept, workdir = full_disk
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    assert result.stderr.splitlines()[-1] == (
        f"tfopt: the disk of {workdir} is full: free some space and run the same command again, "
        "it goes on from the last finished epoch."
    )
    assert kept == ["prune/epochs/epoch_0002", "prune/epochs/epoch_0003"]


def test_every_weight_is_equal_to_the_bit(tiny_run, interrupted):
    for stage in STAGES:
        expected = weights(tiny_run[1] / stage / "model.h5")
        found = weights(interrupted[0] / stage / "model.h5")
        assert expected.keys() == found.keys()
        assert all(np.array_equal(found[name], value) for name, value in expected.items())


def test_tensorboard_goes_on_in_the_same_curves(tiny_run, interrupted):
    for stage, first in zip(STAGES, (1, 4, 7), strict=True):
        expected, found = (
            dict(read.values(read.events(workdir / "tensorboard" / stage), "val_loss"))
            for workdir in (tiny_run[1], interrupted[0])
        )
        assert found == expected and list(found) == [first, first + 1, first + 2]
    _, end = read.session(read.events(interrupted[0] / "tensorboard" / "artifacts"))
    assert end.status == 1


def test_every_artifact_is_equal_to_the_byte(tiny_run, interrupted):
    files = sorted(path.name for path in (tiny_run[1] / "artifacts").glob("*.tflite"))
    assert len(files) == 9
    for name in files:
        expected = (tiny_run[1] / "artifacts" / name).read_bytes()
        assert (interrupted[0] / "artifacts" / name).read_bytes() == expected, name


def test_goes_on_from_the_last_finished_epoch(interrupted):
    _, output = interrupted
    assert "Epoch 1/3" not in output, "the finished epoch was trained again"
    assert output.count("Epoch 3/3") == 1, "a finished stage was trained again"


def interrupted_at(name):
    """Path.replace, which ends the run where the file `name` is written and not yet named."""
    replace = Path.replace

    def replaced(path, target):
        if str(target).endswith(name):
            raise KeyboardInterrupt
        return replace(path, target)

    return replaced


def test_stages_without_epochs_go_on_as_if_nothing_had_been(experiment, tmp_path, monkeypatch):
    one_shot = OneShotPrune(sparsity=0.4, batches=2)
    experiment.stages = [Stage(), one_shot, Equalize(), CorrectBias(batches=2)]
    experiment.variants, experiment.min_agreement = [Int8()], 0.0
    whole, twice = tmp_path / "whole", tmp_path / "twice"
    run(experiment, whole)
    for name in ("one_shot/stage.json", "equalize/model.h5", "correct_bias/rows.json"):
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(Path, "replace", interrupted_at(name))
            run(experiment, twice)
    run(experiment, twice)
    for stage in experiment.stages:
        expected, found = (weights(at / stage.name / "model.h5") for at in (whole, twice))
        assert expected.keys() == found.keys()
        assert all(np.array_equal(found[name], value) for name, value in expected.items())
        artifact = f"artifacts/{stage.name}_int8.tflite"
        assert (whole / artifact).read_bytes() == (twice / artifact).read_bytes()


def test_a_line_an_epoch_tells_of_the_test_split_where_asked(tiny_run):
    lines = re.findall(
        r"^Epoch (\d), Test Loss: \d\.\d{4}, Test Accuracy: 0\.\d{4}$",
        tiny_run[2],
        re.MULTILINE,
    )
    assert lines == ["1", "2", "3"]


def test_history_is_whole(interrupted):
    for stage in STAGES:
        history = json.loads((interrupted[0] / stage / "stage.json").read_text())["history"]
        assert [set(epoch) >= {"loss", "val_accuracy"} for epoch in history] == [True] * 3


def test_no_checkpoint_and_no_half_file_is_left(interrupted):
    assert not left(interrupted[0])
    assert not list(interrupted[0].glob("*/epochs"))

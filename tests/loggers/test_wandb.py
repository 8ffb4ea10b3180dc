import importlib.util
import io
import json
import struct
import sys

import numpy as np
import pytest

from tfopt.errors import ConfigError
from tfopt.loggers import WandB, logged
from tfopt.loggers.wandb import _curve

here = pytest.mark.skipif(
    importlib.util.find_spec("wandb") is None, reason="needs pip install 'tfopt[wandb]'"
)


def records(content):
    """Yield the records of a .wandb file: LevelDB's log format after 7 bytes of their own."""
    block, at, record = 32768, 7, b""
    while at + 7 <= len(content):
        if block - at % block < 7:
            at += block - at % block
            continue
        length, kind = struct.unpack_from("<HB", content, at + 4)  # after a checksum
        record += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole of it, or its last part
            yield record
            record = b""


def written(workdir):
    """Return what W&B has put into its files, a process after another: runs, points, summary."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # whose service may still be writing
    runs, points, summary = [], [], {}
    for path in sorted(workdir.glob("wandb/offline-run-*/*.wandb")):
        for record in map(Record.FromString, records(path.read_bytes())):
            if record.HasField("run"):
                runs.append(record.run)
            points += [values(record.history.item)] if record.HasField("history") else []
            summary |= values(record.summary.update)
    return runs, points, summary


def values(items):
    return {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}


def shown(workdir, epochs):
    with logged([WandB(project="mine")], workdir) as logger:
        logger.hparams({"name": "x", "stages[0].epochs": 2})
        for epoch in epochs:
            logger.scalars("train", {"loss": 1 / epoch}, epoch)
            logger.histograms("train", {"weights/conv": np.arange(9.0)}, epoch)
        logger.figures("", {"best/accuracy": 0.75})
        logger.text("artifacts", "<b>")
        logger.pr_curves({"pr/cat": (np.array([True, False]), np.array([0.9, 0.1]))})


@pytest.fixture
def afresh():
    """W&B reads the environment once in a process."""
    import wandb

    wandb.teardown()
    yield
    wandb.teardown()


@here
def test_a_resumed_run_is_the_same_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    shown(tmp_path, [1])
    shown(tmp_path, [2])
    runs, points, summary = written(tmp_path)
    assert len({run.run_id for run in runs}) == 1 and {run.project for run in runs} == {"mine"}
    curve = {point["_step"]: point["train/loss"] for point in points if "train/loss" in point}
    assert curve == {1: 1.0, 2: 0.5}
    counts = [p["train/weights/conv/values"] for p in points if "train/weights/conv/values" in p]
    assert [sum(each) for each in counts] == [9, 9]
    assert summary["best/accuracy"] == 0.75
    assert any(name.startswith("pr_table") for point in points for name in point)
    texts = [
        path.read_text() for path in tmp_path.glob("wandb/offline-run-*/files/media/html/*.html")
    ]
    assert len(texts) == 2 and all("&lt;b&gt;" in text for text in texts)


def test_without_its_package_it_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with (
        pytest.raises(ConfigError, match=r"the package wandb .*; pip install 'tfopt\[wandb\]'"),
        logged([WandB(project="mine")], tmp_path),
    ):
        pass


@here
def test_without_a_key_it_is_refused(afresh, tmp_path, monkeypatch):
    for name in ("HOME", "NETRC", "WANDB_CONFIG_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "nobody"))
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(sys, "stdin", io.StringIO())  # nobody is asked for it
    with (
        pytest.raises(ConfigError, match=r"No API key .*; wandb login, or set WANDB_MODE=offline"),
        logged([WandB(project="mine")], tmp_path) as logger,
    ):
        logger.hparams({"name": "x"})


def test_precision_and_recall_by_rank():
    recalls, precisions = _curve(np.array([True, False, True]), np.array([0.9, 0.8, 0.1]))
    assert recalls == [0.5, 0.5, 1]
    assert precisions == pytest.approx([1, 1 / 2, 2 / 3])

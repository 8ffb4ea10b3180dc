"""A stage that is stopped after an epoch and started again ends with the same weights."""

from dataclasses import replace

import numpy as np
import pytest

from tests.stages.test_average import linear
from tfopt import preemption
from tfopt.errors import RunError
from tfopt.stages import EMA, SGD, SWA, Bits, Cluster, OneShotPrune, Prune, Quantize, Shrink, Taylor
from tfopt.stages.callbacks import SaveEpoch
from tfopt.stages.train import Place, train

OPTIONS = {"epochs": 4, "learning_rate": 0.05, "optimizer": SGD()}


@pytest.fixture
def stopped(monkeypatch):
    """Let a run end after its second epoch was saved, once."""
    save, saved = SaveEpoch.on_epoch_end, []

    def save_and_stop(self, epoch, logs=None):
        save(self, epoch, logs)
        saved.append(epoch)
        if saved == [0, 1]:
            raise KeyboardInterrupt

    monkeypatch.setattr(SaveEpoch, "on_epoch_end", save_and_stop)


def trained(stage, splits, folder):
    model = stage.prepare(linear(), stage.epochs * splits.steps_per_epoch, splits.samples)
    train(stage, model, [], splits, Place(workdir=folder, trained=True))
    return stage.finish(model).get_weights()


STAGES = pytest.mark.parametrize(
    "stage",
    [
        Cluster(clusters=3, average=SWA(start=0.2), **OPTIONS),
        Prune(sparsity=0.5, average=EMA(decay=0.8), **OPTIONS),
        Quantize(layers=(Bits(layers=("hidden",), weights=4),), average=EMA(decay=0.8), **OPTIONS),
        Quantize(activations=16, **OPTIONS),
        OneShotPrune(sparsity=0.5, **OPTIONS),
        Shrink(params=0.7, multiple=2, score=Taylor(batches=2), average=SWA(), **OPTIONS),
    ],
)


@STAGES
def test_a_resume_changes_nothing(stage, splits, tmp_path, stopped):
    stage = replace(stage, steps_per_execution=16)
    with pytest.raises(KeyboardInterrupt):
        trained(stage, splits, tmp_path / "twice")
    again = trained(stage, splits, tmp_path / "twice")
    whole = trained(stage, splits, tmp_path / "whole")
    assert all(map(np.array_equal, whole, again))


@STAGES
def test_neither_does_a_preemption_within_an_epoch(stage, splits, tmp_path, monkeypatch):
    asked, middle = [], splits.steps_per_epoch + splits.steps_per_epoch // 2
    assert splits.steps_per_epoch < middle < 2 * splits.steps_per_epoch
    with monkeypatch.context() as patch, pytest.raises(preemption.PreemptedError):
        # It is asked after each step and after each epoch.
        patch.setattr(preemption, "noticed", lambda: asked.append(1) or len(asked) == middle + 1)
        trained(stage, splits, tmp_path / "twice")
    names = sorted(path.name for path in (tmp_path / "twice").rglob("epoch_*"))
    steps = middle - splits.steps_per_epoch
    assert names == ["epoch_0001", f"epoch_0001_step_{steps:09d}"]
    again = trained(stage, splits, tmp_path / "twice")
    whole = trained(stage, splits, tmp_path / "whole")
    assert all(map(np.array_equal, whole, again))


def test_an_epoch_that_is_one_execution_is_saved_before_it_ends(splits, tmp_path, monkeypatch):
    stage, asked = Prune(sparsity=0.5, steps_per_execution=16, **OPTIONS), []
    with monkeypatch.context() as patch, pytest.raises(preemption.PreemptedError):
        patch.setattr(preemption, "noticed", lambda: asked.append(1) or len(asked) >= 3)
        trained(stage, splits, tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("epoch_*")) == ["epoch_0001", "epoch_0002"]


def test_another_global_batch_is_refused(splits, tmp_path, stopped):
    stage = Prune(sparsity=0.5, **OPTIONS)
    with pytest.raises(KeyboardInterrupt):
        trained(stage, splits, tmp_path)
    with pytest.raises(RunError, match="of another global batch; go on with as many replicas"):
        trained(stage, replace(splits, batch_size=splits.batch_size // 2), tmp_path)

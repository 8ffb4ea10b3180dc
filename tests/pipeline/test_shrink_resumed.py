"""A shrinking stage that was interrupted goes on with the channels that it had chosen."""

import json

import numpy as np
import pytest

from tfopt.checkpoint import load_model
from tfopt.export import Float32
from tfopt.pipeline import run
from tfopt.stages import SGD, Shrink, Taylor, callbacks


def test_goes_on_after_the_last_finished_epoch(experiment, tmp_path, monkeypatch):
    train = experiment.stages[0]
    train.epochs = 1
    shrink = Shrink(params=0.5, multiple=2, score=Taylor(batches=2), epochs=2, optimizer=SGD())
    experiment.stages, experiment.variants = [train, shrink], [Float32()]
    save = callbacks.SaveEpoch.on_epoch_end

    def save_and_stop(self, epoch, logs=None):
        save(self, epoch, logs)
        if (tmp_path / "stopped" / "train" / "stage.json").exists():
            raise KeyboardInterrupt

    run(experiment, tmp_path / "whole")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(callbacks.SaveEpoch, "on_epoch_end", save_and_stop)
        run(experiment, tmp_path / "stopped")
    stopped = tmp_path / "stopped" / "shrink" / "epochs" / "epoch_0001" / "history.json"
    first = json.loads(stopped.read_text())
    run(experiment, tmp_path / "stopped")
    facts, expected = (
        json.loads((tmp_path / name / "shrink" / "stage.json").read_text())
        for name in ("stopped", "whole")
    )
    assert facts["history"][:1] == first
    assert len(facts["history"]) == 2
    assert facts["after"]["params"] == expected["after"]["params"]
    assert 0.45 < facts["after"]["params"] / facts["before"]["params"] <= 0.5
    weights, others = (
        load_model(tmp_path / name / "shrink" / "model.h5").get_weights()
        for name in ("stopped", "whole")
    )
    for weight, other in zip(weights, others, strict=True):
        np.testing.assert_allclose(weight, other, atol=1e-4)

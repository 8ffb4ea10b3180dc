"""A profile is written and changes no weight."""

import numpy as np
import pytest
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from tests.stages.test_average import linear
from tfopt.compat import keras
from tfopt.preemption import PreemptedError
from tfopt.spec import spec
from tfopt.stages import SGD, Stage
from tfopt.stages.train import Place, train


@spec
class Preempted(Stage):
    """Training that ends in the middle of its profile."""

    def callbacks(self, log_dir):
        return [keras.callbacks.LambdaCallback(on_batch_end=self._end)]

    def _end(self, batch, logs):
        if batch == 2:
            raise PreemptedError


def trained(splits, folder, profile, kind=Stage, **options):
    stage = kind(learning_rate=0.05, optimizer=SGD(), **options)
    model = linear()
    train(stage, model, [], splits, Place(workdir=folder, profile=profile))
    return model.get_weights(), list(folder.rglob("*.xplane.pb"))


def test_a_profile_changes_no_weight(splits, tmp_path, caplog):
    caplog.set_level("INFO")
    options = {"epochs": 2, "steps_per_execution": 3}
    expected, none = trained(splits, tmp_path / "plain", False, **options)
    found, (path,) = trained(splits, tmp_path / "profiled", True, **options)
    assert not none and all(map(np.array_equal, expected, found))
    folder = tmp_path / "profiled/tensorboard/train/plugins/profile"
    # Not of the first execution; of four steps an epoch the second is of one.
    assert path.is_relative_to(folder) and f"profile of 5 steps: {folder};" in caplog.text
    space = xplane_pb2.XSpace.FromString(path.read_bytes())
    names = {data.name for plane in space.planes for data in plane.event_metadata.values()}
    assert any("MatMul" in name for name in names)


def test_a_stage_of_one_execution_has_one_too(splits, tmp_path):
    _, (path,) = trained(splits, tmp_path, True, epochs=1, steps_per_execution=99)
    assert path.stat().st_size > 1000


def test_training_that_ends_early_ends_it(splits, tmp_path):
    with pytest.raises(PreemptedError):
        trained(splits, tmp_path / "preempted", True, Preempted, epochs=1)
    assert list((tmp_path / "preempted").rglob("*.xplane.pb"))
    _, (path,) = trained(splits, tmp_path / "next", True, epochs=1)
    assert path.stat().st_size > 1000

"""A profile is written and changes no weight."""

import numpy as np
from tensorflow.tsl.profiler.protobuf import xplane_pb2

from tests.stages.test_average import linear
from tfopt.stages import SGD, Stage
from tfopt.stages.train import Place, train


def trained(splits, folder, profile, **options):
    stage = Stage(learning_rate=0.05, optimizer=SGD(), **options)
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

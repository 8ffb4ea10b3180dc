"""A workdir in the cloud, for which TensorFlow's file system in memory stands."""

from pathlib import Path

import numpy as np
import pytest
from etils.epath import backend, gpath, register

from tests.pipeline import tiny
from tfopt import paths
from tfopt.checkpoint import load_model
from tfopt.errors import ConfigError
from tfopt.export import Int8
from tfopt.pipeline import run
from tfopt.stages.callbacks import SaveEpoch


@pytest.fixture
def bucket(monkeypatch):
    """An address that is reached as gs:// is, through tf.io.gfile."""
    monkeypatch.setattr(gpath, "_URI_PREFIXES", ("ram://",))
    monkeypatch.setattr(gpath, "_URI_SCHEMES", {"ram"})
    monkeypatch.setitem(gpath._URI_MAP_ROOT, "ram://", "/ram/")
    monkeypatch.setitem(gpath._PREFIX_TO_BACKEND, "ram", backend.tf_backend)
    monkeypatch.setattr(paths, "_REMOTE", ("ram",))
    register.register_path_cls(("ram://",))(gpath.PosixGPath)
    return "ram://bucket/run"


def test_a_run_that_ends_and_goes_on_there_gives_what_one_here_gives(bucket, tmp_path, monkeypatch):
    experiment = tiny.get_config()
    experiment.stages, experiment.variants = experiment.stages[:2], [Int8()]
    save, saved = SaveEpoch.on_epoch_end, []

    def save_and_stop(self, epoch, logs=None):
        save(self, epoch, logs)
        saved.append(epoch)
        if len(saved) == 4:  # after the first epoch of the second stage
            raise KeyboardInterrupt

    monkeypatch.setattr(SaveEpoch, "on_epoch_end", save_and_stop)
    with pytest.raises(KeyboardInterrupt):
        run(experiment, bucket)
    there = paths.located(bucket)
    assert [path.name for path in (there / "prune/epochs").iterdir()] == ["epoch_0001"]
    rows = run(experiment, bucket)
    assert len(saved) == 4 + 2, "it didn't go on after the epoch that was saved"
    here = run(experiment, tmp_path)
    assert [row["bytes"] for row in rows] == [row["bytes"] for row in here]
    models = [load_model(folder / "prune/model.h5").get_weights() for folder in (there, tmp_path)]
    assert all(map(np.array_equal, *models))
    names = {path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()}
    assert all((there / name).exists() for name in names if "tfevents" not in str(name))
    assert not Path("ram:").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("s3://bucket/run", "expected a folder or an address as gs://bucket/run, received 's3://b"),
        ("gs://", "expected a folder or an address as gs://bucket/run, received 'gs://'"),
        ("gs://no-such-bucket/run", "workdir gs://no-such-bucket/run: expected a folder that can"),
    ],
)
def test_an_address_that_is_none(name, message):
    with pytest.raises(ConfigError, match=message):
        run(tiny.get_config(), name)

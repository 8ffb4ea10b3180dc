"""A damaged checkpoint is skipped, a full disk is a sentence, a half-written file never seen."""

import contextlib
import resource
import signal

import numpy as np
import pytest

from tfopt.checkpoint import (
    EpochCheckpoints,
    full_disk_is_an_error,
    load_model,
    save_model,
    write_atomically,
)
from tfopt.compat import keras, tf
from tfopt.errors import RunError


@pytest.fixture
def saved(tmp_path):
    """Three epochs' states of a model whose weights are the epoch's number."""
    model = keras.Sequential([keras.layers.Dense(3, input_shape=(2,))])
    optimizer = keras.optimizers.Adam()
    optimizer.build(model.trainable_variables)
    checkpoints = EpochCheckpoints(tmp_path, model=model, optimizer=optimizer)
    for epoch in (1, 2, 3):
        set_all(model, epoch)
        checkpoints.save([{"loss": float(number)} for number in range(epoch)])
    set_all(model, -1)
    return checkpoints, model, tmp_path


def set_all(model, value):
    for variable in model.variables:
        variable.assign(tf.fill(variable.shape, float(value)))


def test_the_last_two_are_kept_and_the_last_is_restored(saved):
    checkpoints, model, folder = saved
    assert sorted(path.name for path in folder.iterdir()) == ["epoch_0002", "epoch_0003"]
    assert len(checkpoints.restore()[0]) == 3
    assert all(np.all(value == 3) for value in model.get_weights())


@pytest.mark.parametrize("name", ["state.data-00000-of-00001", "state.index", "history.json"])
@pytest.mark.parametrize("damage", ["cut", "empty", "missing"])
def test_one_that_was_cut_short_gives_way_to_the_one_before(saved, name, damage):
    checkpoints, model, folder = saved
    path = folder / "epoch_0003" / name
    content = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    assert len(checkpoints.restore()[0]) == 2
    assert all(np.all(value == 2) for value in model.get_weights())


def test_a_flipped_bit_gives_way_too(saved):
    checkpoints, _, folder = saved
    path = folder / "epoch_0003" / "state.data-00000-of-00001"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert len(checkpoints.restore()[0]) == 2


def test_what_a_kill_left_half_written_is_ignored(saved):
    checkpoints, _, folder = saved
    (folder / ".writing_epoch_0004").mkdir()
    assert len(checkpoints.restore()[0]) == 3
    checkpoints.save([{}] * 4)
    assert not (folder / ".writing_epoch_0004").exists()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_atomically(tmp_path / "file", "old")
    monkeypatch.setattr("pathlib.Path.write_bytes", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_atomically(tmp_path / "file", "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


@contextlib.contextmanager
def small_disk():
    """Let no file grow past 4 kB, which fails as a full disk does.

    Around the write alone: pytest's own output may go to a file, too.
    """
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def big():
    return keras.Sequential([keras.layers.Dense(200, input_shape=(100,))])


@pytest.mark.parametrize("what", ["model", "checkpoint", "text"])
def test_a_full_disk_is_one_sentence_and_nothing_is_lost(tmp_path, what):
    model = big()
    writes = {
        "model": lambda: save_model(model, tmp_path / "model.h5"),
        "checkpoint": lambda: EpochCheckpoints(tmp_path, model=model).save([{}]),
        "text": lambda: write_atomically(tmp_path / "file", "x" * 10_000),
    }
    message = "is full: free some space and run the same command again"
    with pytest.raises(RunError, match=message), full_disk_is_an_error(tmp_path), small_disk():
        writes[what]()
    assert not list(tmp_path.iterdir())


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(ZeroDivisionError), full_disk_is_an_error(tmp_path):
        1 / 0  # noqa: B018


def test_a_model_comes_back_as_it_was(tmp_path):
    model = big()
    save_model(model, tmp_path / "model.h5")
    loaded = load_model(tmp_path / "model.h5")
    assert loaded.get_config() == model.get_config()
    assert all(map(np.array_equal, loaded.get_weights(), model.get_weights()))

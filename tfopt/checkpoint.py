"""Save, load, resume: nothing that the user had is ever lost or half written.

Models are saved as HDF5: of Keras's single-file formats only that one reloads a
quantization-aware model exactly.
"""

import contextlib
import io
import json
import logging
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py

from tfopt.compat import keras, tf
from tfopt.errors import RunError
from tfopt.paths import is_local

_LOG = logging.getLogger(__name__)
_FULL = ("No space left on device", "Disk quota exceeded", "File too large")


@contextlib.contextmanager
def renamed(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Yield a temporary path of the same suffix that becomes `path` if all goes well.

    In the cloud no `folder` can be renamed at once, so it is `path` itself: there the file that is
    written last tells if all did.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if folder and not is_local(path):
        yield path
        return
    temporary = path.with_name(f".writing_{path.name}")
    remove(temporary)
    try:
        yield temporary
        if path.is_dir():
            remove(path)
        temporary.replace(path)
    finally:
        remove(temporary)


def remove(path: Path) -> None:
    """Remove the file or the folder `path`, if it is there."""
    if path.is_dir():
        if is_local(path):
            shutil.rmtree(path)
        else:
            path.rmtree()
    elif path.exists():
        path.unlink()


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, whole."""
    with renamed(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def save_model(model: "keras.Model", path: Path, *, writes: bool = True) -> None:
    """Save `model` with its weights and without optimizer to the HDF5 file `path`.

    Without `writes` it is only read, as all hosts must where one of them writes.
    """
    content = _as_hdf5(model)
    if writes:
        write_atomically(path, content)


def load_model(path: Path) -> "keras.Model":
    """Load a model that `save_model` or Keras wrote, quantization-aware or plain."""
    with path.open("rb") as content, h5py.File(io.BytesIO(content.read())) as file:
        return _loaded(file)


def reloaded(model: "keras.Model") -> "keras.Model":
    """Return `model` as it comes back from `save_model` and `load_model`."""
    with h5py.File(io.BytesIO(_as_hdf5(model))) as file:
        return _loaded(file)


def _as_hdf5(model: "keras.Model") -> bytes:
    # In memory, since HDF5 crashes the process at its end after a write to a full disk.
    content = io.BytesIO()
    tensorflow = logging.getLogger("tensorflow")
    tensorflow.addFilter(_says_more)
    try:
        with h5py.File(content, "w") as file, warnings.catch_warnings():
            warnings.filterwarnings("ignore", "You are saving your model as an HDF5 file")
            model.save(file, include_optimizer=False, save_format="h5")
    finally:
        tensorflow.removeFilter(_says_more)
    return content.getvalue()


def _says_more(record: logging.LogRecord) -> bool:
    # Keras says so of every model that isn't compiled, which it need not be.
    return "the compiled metrics have yet to be built" not in record.getMessage()


def _loaded(source: h5py.File) -> "keras.Model":
    # Deferred, since it loads TensorFlow; Keras finds in it what a quantization-aware model has.
    import tfopt.masks
    import tfopt.rounding  # noqa: F401

    model: Any = keras.models.load_model(source, compile=False)
    return model


@contextlib.contextmanager
def full_disk_is_an_error(workdir: Path) -> Iterator[None]:
    """Turn the many errors that a full disk shows itself by into one RunError."""
    try:
        yield
    except Exception as error:
        if not any(words in str(error) for words in _FULL):
            raise
        raise RunError(
            f"the disk of {workdir} is full: free some space and run the same command again, "
            "it goes on from the last finished epoch."
        ) from error


class EpochCheckpoints:
    """The state of a stage after each finished epoch, or within one; the last two are kept.

    An epoch's folder appears by a rename, so it is whole even after `kill -9`; TensorFlow
    keeps a CRC with each tensor, which tells a folder that was damaged later. In the cloud the
    history is written last: a folder without it isn't whole. Of several hosts
    one `writes`; the others read their variables with it, since some are reduced over all.
    """

    def __init__(self, folder: Path, writes: bool = True, **trackables: Any) -> None:
        self._folder, self._writes = folder, writes
        self._checkpoint = tf.train.Checkpoint(**trackables)

    def save(self, history: list[dict], steps: int = 0) -> None:
        """Save the state after epoch `len(history)` and `steps` of the next, with `history`."""
        if not self._writes:
            with tempfile.TemporaryDirectory() as folder:
                self._checkpoint.write(str(Path(folder) / "state"))
            return
        within = f"_step_{steps:09d}" if steps else ""
        with renamed(self._folder / f"epoch_{len(history):04d}{within}", folder=True) as folder:
            folder.mkdir()
            self._checkpoint.write(str(folder / "state"))
            (folder / "history.json").write_text(json.dumps(history))
        for old in self._epochs()[:-2]:
            remove(old)

    def restore(self) -> tuple[list[dict], int]:
        """Restore the last whole state; return its history and its steps of the next epoch."""
        for folder in reversed(self._epochs()):
            try:
                history = json.loads((folder / "history.json").read_text())
                _read_through(folder / "state")
            except (OSError, ValueError, LookupError, RuntimeError, tf.errors.OpError) as error:
                _LOG.warning("%s is damaged (%s); going back one epoch.", folder, error)
                if self._writes:
                    remove(folder)
                continue
            self._checkpoint.read(str(folder / "state")).assert_consumed()
            return history, int(folder.name.partition("_step_")[2] or 0)
        return [], 0

    def _epochs(self) -> list[Path]:
        return sorted(self._folder.glob("epoch_*"))


def _read_through(prefix: Path) -> None:
    """Read every tensor once: a CRC is checked only when its tensor is read."""
    reader = tf.compat.v1.train.NewCheckpointReader(str(prefix))
    for name in reader.get_variable_to_shape_map():
        reader.get_tensor(name)

"""Examples in NumPy's own archive."""

import shutil
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tfopt.data import disk
from tfopt.data.front_end import FrontEnd
from tfopt.data.pipeline import Pair
from tfopt.data.quality import hint
from tfopt.data.source import Source
from tfopt.data.splits import Splits
from tfopt.errors import ConfigError
from tfopt.spec import bounded, spec


@spec
class Arrays(Source):
    """The arrays x_train, y_train, x_test, y_test of the .npz file at `path`.

    x is (n, ...) whole numbers or float, y (n,) whole numbers. x_validation, y_validation replace
    the share `validation` where they are there. `class_names` are the numbers where none are
    given, and `front_end` says what x was made of. Examples of more than `memory_limit_mb` in all
    are unpacked to `cache_dir` and read from there batch by batch.
    """

    path: str
    class_names: tuple[str, ...] = ()
    front_end: FrontEnd | None = None
    memory_limit_mb: int = bounded(1024, least=0)
    cache_dir: str = "~/.cache/tfopt"

    def load(self, batch_size: int) -> Splits:
        """Return the splits of the archive; raises ConfigError where something is missing."""
        path = Path(self.path).expanduser()
        try:
            with zipfile.ZipFile(path) as archive:
                members = {name.removesuffix(".npy") for name in archive.namelist()}
                pairs = {
                    split: self._pair(archive, path, split, members)
                    for split in ("train", "test", "validation")
                    if split != "validation" or f"x_{split}" in members
                }
        except (OSError, zipfile.BadZipFile) as error:
            raise ConfigError(self._unreadable(path, error)) from error
        return self.splits(
            **pairs,
            class_names=tuple(self.class_names) or _numbered(pairs["train"][1]),
            batch_size=batch_size,
            front_end=self.front_end,
        )

    def _pair(self, archive: zipfile.ZipFile, path: Path, split: str, members: set) -> Pair:
        for name in (f"x_{split}", f"y_{split}"):
            if name not in members:
                raise ConfigError(
                    f"config.data.path: expected an array {name} in {path}, received none; "
                    f"{hint(name, members)}"
                )
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        all_examples = sum(size for name, size in sizes.items() if name.startswith("x_"))
        on_disk = all_examples > self.memory_limit_mb * 2**20
        examples = self._unpacked if on_disk else _read
        try:
            return examples(archive, path, f"x_{split}"), _read(archive, path, f"y_{split}")
        except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
            raise ConfigError(
                f"config.data.path: expected numeric arrays x_{split} and y_{split} in {path}, "
                f"received unreadable ones ({error}); save them again with np.savez."
            ) from error

    def _unpacked(self, archive: zipfile.ZipFile, path: Path, name: str) -> np.memmap:
        def write(file: BinaryIO) -> None:
            with archive.open(f"{name}.npy") as member:
                shutil.copyfileobj(member, file, 2**20)

        stamp = disk.key([str(path.absolute()), disk.stamp(path, path.parent), name])
        size = archive.getinfo(f"{name}.npy").file_size
        return disk.mapped(Path(self.cache_dir) / f"{stamp}.npy", size, write)

    def _unreadable(self, path: Path, error: Exception) -> str:
        if path.exists():
            return (
                f"config.data.path: expected an .npz file, received {path}, which can't be read "
                f"({error}); save it again with np.savez."
            )
        there = path.parent.iterdir() if path.parent.is_dir() else ()
        return (
            f"config.data.path: expected an .npz file, received {path}, which doesn't exist; "
            f"{hint(path.name, [other.name for other in there])}"
        )


def _read(archive: zipfile.ZipFile, path: Path, name: str) -> np.ndarray:
    del path
    with archive.open(f"{name}.npy") as member:
        return np.lib.format.read_array(member, allow_pickle=False)


def _numbered(labels: np.ndarray) -> tuple[str, ...]:
    if labels.dtype.kind not in "iu" or not labels.size:
        return ()
    # Never more classes than labels: one absurd label must not make a billion names.
    return tuple(map(str, range(min(max(int(labels.max()), 0) + 1, labels.size))))

"""Decoded examples that are too large for memory, in .npy files that later runs reuse."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from tfopt.errors import ConfigError


def key(parts: Iterable[str]) -> str:
    """Return a file name's worth of hash over `parts`."""
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()[:24]


def stamp(path: Path, root: Path) -> str:
    """Return name, size and time of a file, which change when its content does."""
    status = path.stat()
    return f"{path.relative_to(root)} {status.st_size} {status.st_mtime_ns}"


def mapped(path: Path, size: int, write: Callable[[BinaryIO], None]) -> np.memmap:
    """Return the .npy file at `path`, mapped into memory, after `write(file)` made it if new.

    `size` is what it will take, in bytes. Raises ConfigError where it can't be written.
    """
    path = path.expanduser()
    if not path.exists():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write(path, write)
        except OSError as error:
            raise ConfigError(
                f"config.data.cache_dir: expected room for {size / 2**20:.0f} MB of decoded "
                f"examples in {path.parent}, received {error.strerror or error}; free some or "
                "set config.data.cache_dir to another disk."
            ) from error
    return np.load(path, mmap_mode="r")


def _write(path: Path, write: Callable[[BinaryIO], None]) -> None:
    # Written and not mapped: a full disk under a mapping kills the process.
    handle, name = tempfile.mkstemp(prefix=path.stem, suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            write(file)
        np.load(name, mmap_mode="r")  # what can't be mapped must not be found by a later run
        Path(name).replace(path)
    finally:
        Path(name).unlink(missing_ok=True)

"""A .tflite file that a tool was given."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tfopt import flatbuffer
from tfopt.errors import ConfigError


def opened(path: Path) -> tuple[bytes, flatbuffer.Graph]:
    """Return the bytes of the file `path` and what they say; ConfigError where it isn't one."""
    with _readable(path):
        content = path.read_bytes()
        return content, flatbuffer.read(content)


def check_is_one(path: Path) -> None:
    """Raise ConfigError unless the file `path` begins as a .tflite does, of whatever version."""
    with _readable(path), path.open("rb") as file:
        flatbuffer.check_mark(file.read(8))


@contextlib.contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"can't read {path}: {error}") from error

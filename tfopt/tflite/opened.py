"""A .tflite file that a tool was given."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from tfopt.errors import ConfigError
from tfopt.tflite import flatbuffer, flatgraph, metadata


def opened(path: Path) -> tuple[bytes, flatgraph.Graph]:
    """Return the bytes of the file `path` and what they say; ConfigError where it isn't one."""
    with readable(path):
        content = path.read_bytes()
        return content, flatbuffer.read(content)


def described(path: Path) -> tuple[bytes, metadata.Description]:
    """Return the bytes of the file `path` and what tfopt has put into it.

    Raises ConfigError where it isn't a .tflite, or tfopt has put nothing there.
    """
    with readable(path):
        content = path.read_bytes()
        flatbuffer.check_mark(content)
        found = metadata.read(content)
        if found is None:
            raise ValueError(
                "it has none of tfopt's metadata, which say what its input is and what its "
                "answers mean; export it with tfopt."
            )
        return content, found


def check_is_one(path: Path) -> None:
    """Raise ConfigError unless the file `path` begins as a .tflite does, of whatever version."""
    with readable(path), path.open("rb") as file:
        flatbuffer.check_mark(file.read(8))


@contextlib.contextmanager
def readable(path: Path) -> Iterator[None]:
    """Make a ConfigError that names `path` of what says why it can't be read."""
    try:
        yield
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"can't read {path}: {error}") from error

"""A .tflite file that a tool was given."""

from pathlib import Path

from tfopt import flatbuffer
from tfopt.errors import ConfigError


def opened(path: Path) -> tuple[bytes, flatbuffer.Graph]:
    """Return the bytes of the file `path` and what they say; ConfigError where it isn't one."""
    try:
        content = path.read_bytes()
        return content, flatbuffer.read(content)
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}.") from error
    except ValueError as error:
        raise ConfigError(f"can't read {path}: {error}") from error

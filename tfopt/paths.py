"""Where a workdir may be: in a folder here, or in the cloud."""

import re
from pathlib import Path
from typing import Any

from tfopt.errors import ConfigError

_REMOTE = ("gs",)


def located(name: str | Path) -> Path:
    """Return the absolute path of the folder `name`.

    One as gs://bucket/run is reached through TensorFlow's gfile. What stands for it then has the
    methods of a pathlib.Path that are used on a workdir, see `is_local` for the others.
    """
    # pathlib takes the second slash away.
    remote = re.match(r"(\w{2,}):/+(.*)", str(name))
    if not remote:
        try:
            return Path(name).expanduser().absolute()
        except RuntimeError as error:
            raise ConfigError(
                f"--workdir: expected a folder, received {str(name)!r}: {error}"
            ) from error
    if remote[1] not in _REMOTE or not remote[2]:
        raise ConfigError(
            f"--workdir: expected a folder or an address as {_REMOTE[0]}://bucket/run, received "
            f"{str(name)!r}."
        )
    # Deferred, as few need it.
    from etils import epath

    path: Any = epath.Path(f"{remote[1]}://{remote[2]}")
    return path


def is_local(path: Path) -> bool:
    """Return whether `path` is here: it can be mapped, and a folder renamed at once."""
    return isinstance(path, Path)


def size(path: Path) -> int:
    """Return the bytes of the file at `path`, here or in the cloud."""
    found: Any = path.stat()
    return found.st_size if is_local(path) else found.length

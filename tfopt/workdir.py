"""Which experiment a workdir belongs to, and whether what it holds can be read."""

import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tfopt import hosts
from tfopt.checkpoint import write_atomically
from tfopt.compat import tf
from tfopt.config import Experiment
from tfopt.errors import ConfigError
from tfopt.paths import is_local

_IDENTITY = "experiment.json"
_FREE = (
    *("min_agreement", "variants", "strategy", "mesh", "replicas", "tpu", "cluster_timeout"),
    *("budget", "loggers", "profile"),
)
_SHOWN = 3
_LOCK = ".lock"
_LOG = logging.getLogger(__name__)


def check_workdir(workdir: Path, experiment: Experiment) -> None:
    """Raise ConfigError where `workdir` can't be used, is damaged or holds another experiment."""
    _check_reachable(workdir)
    mine = experiment.to_json()
    theirs = _read(workdir / _IDENTITY, "delete it if the folder is this experiment's")
    if theirs is None:
        _tell_what_is_there(workdir)
    else:
        # These change no training, or none that would be another: a finished run is proven again,
        # where it must be, and one that was stopped may go on with other devices.
        free = {name: mine[name] for name in _FREE}
        if differing := list(_differences({**theirs, **free}, mine)):
            raise ConfigError(
                f"workdir {workdir}: expected a new folder or one of this experiment, received "
                f"one whose {_named(differing)}; choose another --workdir."
            )
    for index, stage in enumerate(experiment.stages):
        again = ", ".join(str(workdir / later.name) for later in experiment.stages[index:])
        _read(workdir / stage.name / "stage.json", f"delete {again} to train from there on again")
        _read(workdir / stage.name / "rows.json", "delete it to have the artifacts measured again")


def _tell_what_is_there(workdir: Path) -> None:
    """Log that `workdir`, which is of no run yet, holds things that can be seen."""
    names = sorted(path.name for path in workdir.iterdir() if not path.name.startswith("."))
    if names:
        _LOG.warning(
            "workdir %s: holds no run yet but other things, as %r, beside which all is written.",
            *(workdir, names[0]),
        )


def _check_reachable(workdir: Path) -> None:
    local = is_local(workdir)
    refusals = (OSError,) if local else (OSError, tf.errors.OpError)
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except refusals as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        remedy = "" if local else "see that there is a network and that you may write there, or "
        raise ConfigError(
            f"workdir {workdir}: expected a folder that can be written, received {first}; "
            f"{remedy}choose another --workdir."
        ) from error


@contextlib.contextmanager
def alone_in(workdir: Path) -> Iterator[None]:
    """Keep every other run out of `workdir`, for as long as this process lives.

    Raises ConfigError where there is one already. In the cloud nobody is kept out.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # on Windows
        fcntl = None
    if fcntl is None or not is_local(workdir):
        yield
        return
    path = workdir / _LOCK
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise ConfigError(
                f"workdir {workdir}: expected no other run in it, received that of process "
                f"{file.read() or 'unknown'}; wait for its end or choose another --workdir."
            ) from error
        except OSError:
            _LOG.warning("workdir %s: its file system has no locks.", workdir)
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


def check_shared(workdir: Path) -> None:
    """Raise ConfigError where `workdir` isn't the one that the chief has claimed."""
    if not hosts.sees(workdir / _IDENTITY):
        raise ConfigError(
            f"workdir {workdir}: expected a folder that all hosts share, received one without "
            "what worker 0 wrote to it; choose a --workdir on a disk that all of them mount."
        )


def config_hash(experiment: Experiment) -> str:
    """Return 12 hexadecimal digits of all in `experiment` that another training comes of."""
    kept = {name: value for name, value in experiment.to_json().items() if name not in _FREE}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:12]


def claim(workdir: Path, experiment: Experiment) -> None:
    """Make `workdir` that of `experiment`, for every run to come."""
    write_atomically(workdir / _IDENTITY, json.dumps(experiment.to_json(), indent=2))


def _read(path: Path, remedy: str) -> Any:
    """Return what the JSON file at `path` holds, None where there is no such file."""
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(
            f"{path}: expected JSON as tfopt wrote it, received a damaged file ({error}); "
            f"{remedy}, or choose another --workdir."
        ) from error


def _differences(theirs: Any, ours: Any, at: str = "config") -> Iterator[tuple[str, Any, Any]]:
    """Yield path and both values of each place where two JSON trees differ, `source` last."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        if theirs.get("type") != ours.get("type"):
            yield at, theirs, ours
            return
        for name in sorted({**theirs, **ours}, key="source".__eq__):
            yield from _differences(theirs.get(name), ours.get(name), f"{at}.{name}")
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for index, pair in enumerate(zip(theirs, ours, strict=True)):
            yield from _differences(*pair, f"{at}[{index}]")
    elif theirs != ours:
        yield at, theirs, ours


def _named(differing: list[tuple[str, Any, Any]]) -> str:
    parts = [
        f"config file has other code ({at} {theirs!r}, here {ours!r})"
        if at == "config.source"
        else f"{at} is {_shown(theirs)} (here {_shown(ours)})"
        for at, theirs, ours in differing[:_SHOWN]
    ]
    more = len(differing) - len(parts)
    return ", and whose ".join(parts) + (f", and {more} more differ" if more else "")


def _shown(value: Any) -> str:
    """Return a JSON value in short: of a spec its class, of specs in a list all of them."""
    if isinstance(value, dict):
        return value.get("type", "").split(".")[-1] + "()"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    return repr(value)

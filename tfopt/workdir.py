"""Which experiment a workdir belongs to."""

import json
from pathlib import Path
from typing import Any

from tfopt.checkpoint import write_atomically
from tfopt.config import ConfigError, Experiment

_IDENTITY = "experiment.json"


def check_workdir(workdir: Path, experiment: Experiment) -> None:
    """Raise ConfigError where `workdir` can't be used or holds another experiment."""
    path, mine = workdir / _IDENTITY, experiment.to_json()
    if path.exists():
        # These change no training: a finished run is proven again, where it must be.
        free = {name: mine[name] for name in ("min_agreement", "variants")}
        theirs = {**json.loads(path.read_text()), **free}
        differing = _difference(theirs, mine)
        if differing:
            name, theirs, ours = differing
            raise ConfigError(
                f"workdir {workdir}: expected a new folder or one of this experiment, received "
                f"one whose {name} is {theirs!r} (here {ours!r}); choose another --workdir."
            )
    try:
        workdir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"workdir {workdir}: expected a folder that can be written, received {error}; "
            "choose another --workdir."
        ) from error


def claim(workdir: Path, experiment: Experiment) -> None:
    """Make `workdir` that of `experiment`, for every run to come."""
    write_atomically(workdir / _IDENTITY, json.dumps(experiment.to_json(), indent=2))


def _difference(theirs: Any, ours: Any, at: str = "config") -> tuple | None:
    """Return path and both values of the first place where two JSON trees differ."""
    if type(theirs) is not type(ours) or not isinstance(ours, (dict, list)):
        return None if theirs == ours else (at, theirs, ours)
    if isinstance(ours, dict):
        pairs = [(f"{at}.{k}", theirs.get(k), ours.get(k)) for k in {**theirs, **ours}]
    elif len(theirs) != len(ours):
        return f"number of {at.split('.')[-1]}", len(theirs), len(ours)
    else:
        pairs = [(f"{at}[{i}]", *pair) for i, pair in enumerate(zip(theirs, ours, strict=True))]
    return next(filter(None, (_difference(a, b, name) for name, a, b in pairs)), None)

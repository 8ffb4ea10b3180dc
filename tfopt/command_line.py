"""From the words of a command line to a validated Experiment, without TensorFlow."""

import dataclasses
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from tfopt.config import Experiment
from tfopt.config_file import load_config
from tfopt.errors import ConfigError, nearest
from tfopt.paths import located
from tfopt.spec import words

# What a flag is read as; all else is a text or a tuple, or can't be one flag.
_READ = (bool, int, float)


def parse(arguments: list[str]) -> tuple[Experiment, Path]:
    """Return the experiment that `arguments` ask for, overrides applied, and its workdir."""
    name, overrides = _split(arguments)
    experiment = load_config(name)
    overrides = _applied(experiment, overrides)
    values = flags.FlagValues()
    try:
        flags.DEFINE_string("workdir", None, "", flag_values=values)
        config_flags.DEFINE_config_dataclass(
            "config", experiment, flag_values=values, sys_argv=["tfopt", *overrides]
        )
        stray = values(["tfopt", *overrides])[1:]
    except flags.UnrecognizedFlagError as error:
        hint = nearest(error.flagname, ["config", "workdir"])
        raise ConfigError(f"there is no flag --{error.flagname}; {hint}") from error
    except (flags.Error, TypeError, ValueError) as error:
        raise ConfigError(f"{error}.") from error
    if stray:
        raise ConfigError(f"expected flags like --config=digits, received {stray[0]!r}.")
    experiment = values.config
    experiment.validate()
    return experiment, located(values.workdir or f"runs/{experiment.name}")


def _split(arguments: list[str]) -> tuple[str, list[str]]:
    """Return the value of --config and all other arguments."""
    name, others, rest = "digits", [], iter(arguments)
    for argument in rest:
        flag, _, value = argument.lstrip("-").partition("=")
        if argument.startswith("-") and flag == "config":
            name = value or next(rest, "")
        else:
            others.append(argument)
    return name, others


def _applied(experiment: Experiment, arguments: list[str]) -> list[str]:
    """Check each override in `arguments`; return those that are left to carry out."""
    left = []
    for argument in arguments:
        override = re.match(r"--?(?:no)?config\.([^=]+)(?:=(.*))?", argument)
        place = _place(experiment, override[1]) if override else None
        if place and override and _wants_none(place, override[2]):
            # Here, since ml_collections can't where there is more than one other type.
            setattr(place.owner, place.name, None)
            continue
        if place and override:
            _check_value(place, override[2])
        left.append(argument)
    return left


@dataclasses.dataclass(frozen=True, slots=True)
class _Place:
    """A field of the experiment's tree: whose it is, what it holds, and what it may hold."""

    owner: Any
    name: str
    value: Any
    hint: Any
    at: str

    @property
    def optional(self) -> bool:
        """Whether it may be None."""
        return type(None) in typing.get_args(self.hint)


def _place(experiment: Experiment, path: str) -> _Place:
    """Return the field at `path`, as `stages[1].sparsity`; raise ConfigError without one."""
    place = _Place(None, "", experiment, Any, "config")
    for part in path.split("."):
        name, *indices = re.split(r"[\[\]]+", part.rstrip("]"))
        place = _field(place, name, path)
        for index in indices:
            items = place.value if isinstance(place.value, (list, tuple)) else ()
            names = [getattr(item, "name", "") for item in items]
            if index in names:
                raise ConfigError(
                    f"{place.at}: expected a number in brackets, received {index!r}; write "
                    f"[{names.index(index)}]."
                )
            if not index.isdigit() or int(index) >= len(items):
                raise ConfigError(
                    f"{place.at}: expected an index below {len(items)}, received {index!r}."
                )
            place = _Place(None, "", items[int(index)], Any, f"{place.at}[{index}]")
    return place


def _field(place: _Place, name: str, path: str) -> _Place:
    node, at = place.value, place.at
    if isinstance(node, list):
        raise ConfigError(_by_number(place, name, path))
    if node is None:
        raise ConfigError(
            f"{at} is None and has no field {name!r}; set it to {_objects(place.hint)} in a config "
            "file first."
        )
    fields = dataclasses.fields(node) if dataclasses.is_dataclass(node) else ()
    names = [field.name for field in fields]
    if name not in names:
        raise ConfigError(f"{at} has no field {name!r}; {nearest(name, names)}")
    hint = typing.get_type_hints(type(node))[name]
    return _Place(node, name, getattr(node, name), hint, f"{at}.{name}")


def _by_number(place: _Place, name: str, path: str) -> str:
    names = [getattr(item, "name", "") for item in place.value]
    if name in names:
        path = path.replace(f".{name}", f"[{names.index(name)}]", 1)
        return (
            f"{place.at}: expected a number in brackets, received {name!r}; write --config.{path}."
        )
    return (
        f"{place.at}: expected a number in brackets, as in {place.at}[0], received {name!r}; it "
        f"has: {', '.join(f'{other} [{i}]' for i, other in enumerate(names)) or 'none'}."
    )


def _wants_none(place: _Place, value: str | None) -> bool:
    return place.optional and value is not None and value.lower() == "none"


def _check_value(place: _Place, value: str | None) -> None:
    """Raise ConfigError unless a flag can set the field to `value`."""
    hint, node, at = place.hint, place.value, place.at
    if place.optional and node is None and _specs(hint):
        raise ConfigError(
            f"{at}: expected none, as the command line makes no objects, received {value!r}; set "
            f"it to {_objects(hint)} in a config file."
        )
    whole = hint in (Any, Callable) or Callable in typing.get_args(hint) or _specs(hint)
    if isinstance(node, list) or (whole and not _is_plain(node)):
        one = f"{at}[0]" if isinstance(node, list) else at
        raise ConfigError(
            f"{at}: expected {'none or ' if place.optional else ''}one field of it on the command "
            f"line, as in --{one}.FIELD=VALUE; set the whole in a config file."
        )
    kind = next((part for part in (hint, *typing.get_args(hint)) if part in _READ), None)
    if kind and value is not None and not _reads_as(kind, value):
        raise ConfigError(f"{at}: expected {words(kind)}, received {value!r}.")


def _specs(hint: Any) -> list[type]:
    parts = [part for part in (hint, *typing.get_args(hint)) if isinstance(part, type)]
    return [part for part in parts if dataclasses.is_dataclass(part)]


def _objects(hint: Any) -> str:
    """Return how objects that `hint` allows are written, as `EMA() or SWA()`."""
    kinds = [kind for spec in _specs(hint) for kind in (spec.__subclasses__() or [spec])]
    return " or ".join(dict.fromkeys(f"{kind.__name__}()" for kind in kinds)) or "an object"


def _is_plain(value: Any) -> bool:
    return isinstance(value, (int, float, str, bool, tuple))


def _reads_as(kind: type, text: str) -> bool:
    parse: Any = flags.BooleanParser().parse if kind is bool else kind
    try:
        parse(text)
    except ValueError:
        return False
    return True

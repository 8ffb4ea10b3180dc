"""From the words of a command line to a validated Experiment, without TensorFlow."""

import ast
import dataclasses
import hashlib
import importlib.util
import re
import sys
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import config_flags

from tfopt.config import ConfigError, Experiment, nearest, words

_PACKAGE = Path(__file__).parent


def parse(arguments: list[str]) -> tuple[Experiment, Path]:
    """Return the experiment that `arguments` ask for, overrides applied, and its workdir."""
    name, overrides = _split(arguments)
    experiment = load_config(name)
    for path, value in _config_fields(overrides):
        _check_override(experiment, path, value)
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
    return experiment, Path(values.workdir or f"runs/{experiment.name}")


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


def _config_fields(arguments: list[str]) -> list[tuple[str, str | None]]:
    matches = [re.match(r"--?(?:no)?config\.([^=]+)(?:=(.*))?", word) for word in arguments]
    return [(match[1], match[2]) for match in matches if match]


def _check_override(experiment: Experiment, path: str, value: str | None) -> None:
    """Raise ConfigError unless `path`, as `stages[1].sparsity`, is a field that takes `value`."""
    node, hint, at = experiment, Any, "config"
    for part in path.split("."):
        name, *indices = re.split(r"[\[\]]+", part.rstrip("]"))
        fields = dataclasses.fields(node) if dataclasses.is_dataclass(node) else ()
        names = [field.name for field in fields]
        if name not in names:
            raise ConfigError(f"{at} has no field {name!r}; {nearest(name, names)}")
        hint = typing.get_type_hints(type(node))[name]
        node, at = getattr(node, name), f"{at}.{name}"
        for index in indices:
            count = len(node) if isinstance(node, (list, tuple)) else 0
            if not index.isdigit() or int(index) >= count:
                raise ConfigError(f"{at}: expected an index below {count}, received {index!r}.")
            node, hint, at = node[int(index)], Any, f"{at}[{index}]"
    whole = hint in (Any, Callable) or Callable in typing.get_args(hint)
    if isinstance(node, list) or (whole and not _is_plain(node)):
        one = f"{at}[0]" if isinstance(node, list) else at
        raise ConfigError(
            f"{at}: expected one field of it on the command line, as in --{one}.FIELD=VALUE; "
            "set the whole in a config file."
        )
    if hint in (bool, int, float) and value is not None and not _reads_as(hint, value):
        raise ConfigError(f"{at}: expected {words(hint)}, received {value!r}.")


def _is_plain(value: Any) -> bool:
    return isinstance(value, (int, float, str, bool, tuple))


def _reads_as(kind: type, text: str) -> bool:
    parse: Any = flags.BooleanParser().parse if kind is bool else kind
    try:
        parse(text)
    except ValueError:
        return False
    return True


def load_config(name: str) -> Experiment:
    """Return what `get_config()` of a shipped config or of a Python file returns."""
    shipped = shipped_configs().get(name)
    path = shipped or Path(name).expanduser()
    if not path.is_file():
        files = [*shipped_configs(), *map(str, Path(name).parent.glob("*.py"))]
        raise ConfigError(
            f"--config: expected a shipped config or a Python file, received {name!r}, which is "
            f"neither; {nearest(name, files)}"
        )
    module_spec = importlib.util.spec_from_file_location("tfopt_config", path)
    if module_spec is None or module_spec.loader is None:
        raise ConfigError(f"--config: expected a Python file, received {name!r}.")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # dataclasses in a config look their module up
    if not shipped and (beside := str(path.resolve().parent)) not in sys.path:
        sys.path.append(beside)  # a config may import a model that lies beside it
    try:
        module_spec.loader.exec_module(module)
        experiment = module.get_config()
    except Exception as error:
        raise ConfigError(f"--config={name}: {error}") from error
    if not isinstance(experiment, Experiment):
        received = type(experiment).__name__
        raise ConfigError(
            f"--config={name}: expected get_config() to return an Experiment, received {received}."
        )
    if not shipped:
        code = ast.dump(ast.parse(path.read_text()))  # without comments, which change nothing
        experiment.source = hashlib.sha256(code.encode()).hexdigest()[:16]
    return experiment


def shipped_configs() -> dict[str, Path]:
    """Return the configs that come with tfopt, by name."""
    # Installed, configs lie in the package; in a checkout, beside it.
    folders = [_PACKAGE / "configs", _PACKAGE.parent / "configs"]
    folder = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {path.stem: path for path in folder.glob("*.py") if path.stem != "__init__"}

"""A config's file -> its Experiment; a mistake in the file is told with its line."""

import ast
import hashlib
import importlib.util
import inspect
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType

from tfopt.config import Experiment
from tfopt.errors import ConfigError, nearest

_PACKAGE = Path(__file__).parent
_KEYWORD = re.compile(r"(\w+)\(\) got an unexpected keyword argument '(\w+)'")
_IMPORT = re.compile(r"cannot import name '(\w+)' from '([\w.]+)'")


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
    if not shipped and (beside := str(path.resolve().parent)) not in sys.path:
        sys.path.append(beside)  # a config may import a model that lies beside it
    experiment = _executed(name, path)
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


def _executed(name: str, path: Path) -> object:
    """Return what the `get_config()` in `path` returns, or raise ConfigError with the line."""
    module_spec = importlib.util.spec_from_file_location("tfopt_config", path)
    if module_spec is None or module_spec.loader is None:
        raise ConfigError(f"--config: expected a Python file, received {name!r}.")
    module = importlib.util.module_from_spec(module_spec)
    sys.modules[module_spec.name] = module  # dataclasses in a config look their module up
    try:
        module_spec.loader.exec_module(module)
        return module.get_config()
    except Exception as error:
        said = " ".join(str(error).split()) or type(error).__name__
        hint = _hint(error, module)
        sentence = f"{said.rstrip('.')}; {hint}" if hint else said
        raise ConfigError(f"--config={name}{_line(error, path)}: {sentence}") from error


def _line(error: Exception, path: Path) -> str:
    """Return `:N`, the last line of the file at `path` that led to `error`."""
    if isinstance(error, SyntaxError):
        number = error.lineno if error.filename == str(path) else None
    else:
        frames = traceback.extract_tb(error.__traceback__)
        number = next((f.lineno for f in reversed(frames) if f.filename == str(path)), None)
    return f":{number}" if number else ""


def _hint(error: Exception, module: ModuleType) -> str:
    """Return which name may have been meant, "" for an error that isn't about one."""
    said = str(error)
    if found := _KEYWORD.search(said):
        return _nearest(found[2], _parameters(getattr(module, found[1], None)))
    if found := _IMPORT.search(said):
        return _nearest(found[1], dir(sys.modules.get(found[2])))
    if isinstance(error, AttributeError) and error.name:
        return _nearest(error.name, dir(error.obj))
    if isinstance(error, NameError) and error.name:
        return _nearest(error.name, dir(module))
    return ""


def _nearest(name: str, names: Iterable[str]) -> str:
    public = [other for other in names if not other.startswith("_")]
    return nearest(name, public) if public else ""


def _parameters(function: Callable | None) -> list[str]:
    return list(inspect.signature(function).parameters) if callable(function) else []

"""The models that are made one."""

from typing import Any

from tfopt.compat import keras
from tfopt.errors import ConfigError
from tfopt.facts import is_quantized
from tfopt.models import Saved


def load_all(models: tuple, whole: str) -> dict[str, "keras.Model"]:
    """Return the `models` of `whole` by what an error calls them.

    Each is the path of a saved model, an object with `load()`, or a model. Raises ConfigError
    for what is none of these, and for a quantization-aware model.
    """
    if not models:
        raise ConfigError(f"{whole}.models: expected at least one model, received none.")
    found = {}
    for index, given in enumerate(models):
        at = f"{whole}.models[{index}]"
        model = _loaded(given, at)
        if is_quantized(model):
            raise ConfigError(
                f"{at}: expected a model without quantization-aware layers, received "
                f"{_title(given)}, which has some; take the one before it was quantized."
            )
        found[f"{at} ({_title(given)})"] = model
    return found


def checked(model: Any, spec: Any, whole: str) -> "keras.Model":
    """Return `model`, which takes one input of the shape that `spec` of the data says."""
    shapes = [tuple(tensor.shape[1:]) for tensor in model.inputs]
    if shapes != [tuple(spec.shape)]:
        raise ConfigError(
            f"{whole}.models: expected one input of the data's shape {tuple(spec.shape)}, "
            f"received {', '.join(map(str, shapes))}; fuse models of one "
            "kind of input, or load() it and give a variant's convert() examples by input."
        )
    return model


def _loaded(given: Any, at: str) -> "keras.Model":
    if isinstance(given, keras.Model):
        return given
    if callable(getattr(given, "load", None)):
        return given.load()
    if not isinstance(given, str):
        raise ConfigError(
            f"{at}: expected the path of a saved model as a string, an object with load() or a "
            f"model, received {given!r}."
        )
    try:
        return Saved(path=given).load()
    except ValueError as error:
        raise ConfigError(
            f"{at}: expected a model of plain layers, received {given}, of which Keras says "
            f"{str(error).splitlines()[0]!r}; take the one before it was quantized."
        ) from error


def _title(given: Any) -> str:
    return given if isinstance(given, str) else getattr(given, "name", type(given).__name__)

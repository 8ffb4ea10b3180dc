"""In which numbers a stage computes; its variables are always float32."""

from typing import Any

from tfopt.compat import keras
from tfopt.facts import is_quantized
from tfopt.graph import copied, rebuilt

_MIXED, _FULL = "mixed_bfloat16", "float32"
# They compute in what they are given.
_OPERATORS = ("TFOpLambda", "SlicingOpLambda", "ClassMethod")


def in_mixed(model: "keras.Model") -> "keras.Model":
    """Return a copy of the functional `model` that computes in bfloat16, but for its logits.

    Source: Kalamkar et al. 2019, "A Study of BFLOAT16 for Deep Learning Training".
    """
    outputs: Any = model.outputs
    last = outputs[0]._keras_history.layer
    return rebuilt(model, lambda layer: _with(layer, _FULL if layer is last else _MIXED))


def in_full(model: "keras.Model") -> "keras.Model":
    """Return the functional `model` computing in float32: itself, or a copy of a mixed one."""
    return rebuilt(model, lambda layer: _with(layer, _FULL)) if is_mixed(model) else model


def for_stage(stage: Any, model: "keras.Model", *, mixed: bool) -> "keras.Model":
    """Return `model` in the numbers that `stage` trains in; quantization's are float32."""
    return in_mixed(model) if mixed and stage.epochs and not stage.quantizes else model


def for_teachers(stage: Any, models: list, *, mixed: bool) -> list:
    """Return the teachers' `models` in the numbers of `stage`, those that are one still one.

    A quantization-aware teacher stays as it is.
    """
    found = {
        id(model): model if is_quantized(model) else for_stage(stage, model, mixed=mixed)
        for model in models
    }
    return [found[id(model)] for model in models]


def is_mixed(model: "keras.Model") -> bool:
    """Return whether a layer of `model` computes in other numbers than its variables are."""
    return any(layer.dtype_policy.name == _MIXED for layer in model.layers)


def _with(layer: Any, policy: str) -> "keras.layers.Layer":
    if type(layer).__name__ in _OPERATORS:
        return copied(layer)
    return type(layer).from_config({**layer.get_config(), "dtype": policy})

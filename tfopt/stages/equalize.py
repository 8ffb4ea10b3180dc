"""Cross-layer equalization (Nagel et al. 2019, "Data-free quantization", section 4.1)."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np

from tfopt.compat import keras, tf
from tfopt.errors import ConfigError
from tfopt.graph import computed, consumers, producers, rebuilt
from tfopt.spec import bounded, spec
from tfopt.stages.base import Stage
from tfopt.stages.fold import by_input, by_output, folded, input_rows, linear, output_rows

# What a positive factor of a channel passes through unchanged.
_PASSING = (
    "Activation",
    "AveragePooling2D",
    "Cropping2D",
    "Dropout",
    "Flatten",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling2D",
    "LeakyReLU",
    "MaxPooling2D",
    "PReLU",
    "ReLU",
    "SpatialDropout2D",
    "UpSampling2D",
    "ZeroPadding2D",
)
_ROUNDS, _SETTLED = 50, 1e-3


@spec
class Equalize(Stage):
    """Give the channels between two layers ranges alike, so that one scale fits all of them.

    What a channel's kernel is divided by in one layer it is multiplied by in the next, through
    ReLU, pooling and folded BatchNormalization: the model computes the same, and its int8 file
    less far from it. A ceiling, as ReLU6 has, doesn't scale: it is taken off where no more than
    a share of `ceilings` of the outputs reach it on `batches` batches, and ends the chain else;
    outputs that reach it then, on other data as well, are another thing, which the next stage may
    have to train away.
    Not for clustered kernels, whose shared values it would scale apart.
    """

    needs_trained: ClassVar[bool] = True

    name: str = "equalize"
    epochs: int = bounded(0, least=0)
    ceilings: float = bounded(0.0, least=0, most=1)
    batches: int = bounded(8, least=1)

    def prepare(self, model: "keras.Model", steps: int, samples: Any) -> "keras.Model":
        """Return `model` without BatchNormalization that folds, and equalized."""
        del steps
        model = _without_ceilings(folded(model), samples.take(self.batches), self.ceilings)
        pairs = list(_pairs(model))
        if not pairs:
            raise ConfigError(
                f"stage {self.name!r}: expected two layers with kernels and at most ReLU or "
                f"pooling between them, received a model without; leave the stage out"
                f"{' or raise ceilings' if _ceilings(model) else ''}."
            )
        for _ in range(_ROUNDS):
            if max(_equalize(*pair) for pair in pairs) < _SETTLED:
                break
        return model


def _without_ceilings(model: "keras.Model", batches: Any, share: float) -> "keras.Model":
    """Return `model` with ReLU for each ReLU with a ceiling that is hardly reached."""
    ceilings, reached, total = _ceilings(model), Counter(), Counter()

    def count(layer: Any, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        if layer.name in ceilings:
            reached[layer.name] += int(tf.math.count_nonzero(outputs >= ceilings[layer.name]))
            total[layer.name] += int(tf.size(outputs))
        return outputs

    for examples, *_ in batches if ceilings else ():
        computed(model, [tf.cast(examples, model.inputs[0].dtype)], count)
    lifted = {name for name in ceilings if reached[name] <= share * total[name]}

    def replace(layer: Any) -> Any:
        changes = {"max_value": None} if layer.name in lifted else {}
        return type(layer).from_config({**layer.get_config(), **changes})

    return rebuilt(model, replace) if lifted else model


def _ceilings(model: "keras.Model") -> dict[str, float]:
    relus = [layer for layer in model.layers if isinstance(layer, keras.layers.ReLU)]
    return {relu.name: float(relu.max_value) for relu in relus if relu.max_value is not None}


def _pairs(model: "keras.Model") -> Iterator[tuple[Any, Any]]:
    """Yield the layers with kernels between which nothing stands that a factor can't pass."""
    takers, calls, layers = consumers(model), producers(model), linear(model)
    for layer in layers.values():
        first = layer
        while _passes(layer) and len(takers[layer.name]) == 1:
            if layer.name in model.output_names:
                break
            layer = takers[layer.name][0]
            if layer.name in layers:
                if getattr(layer, "groups", 1) == 1:
                    yield first, layer
                break
            if type(layer).__name__ not in _PASSING or len(calls[layer.name]) != 1:
                break


def _passes(layer: Any) -> bool:
    """Return whether `layer`, of a kind that may, computes s·y for s·x with any s > 0."""
    inner = getattr(layer, "activation", keras.activations.linear)
    straight = inner in (keras.activations.linear, keras.activations.relu)
    ceiling, threshold = getattr(layer, "max_value", None), getattr(layer, "threshold", 0.0)
    return straight and ceiling is None and not threshold


def _equalize(first: Any, second: Any) -> float:
    """Make the ranges of the channels between two layers equal; return by what factor, as log."""
    (kernel, bias), (after, *rest) = first.get_weights(), second.get_weights()
    rows = input_rows(second, after)
    # Flatten lays the positions of a channel as many rows apart as there are channels.
    made = np.abs(output_rows(first, kernel)).max(1)
    taken = np.abs(rows).max(1).reshape(-1, len(made)).max(0)
    used = (made > 0) & (taken > 0)
    factors = np.sqrt(np.where(used, made, 1) / np.where(used, taken, 1))
    first.set_weights([kernel / by_output(first, factors), bias / factors])
    second.set_weights([after * by_input(second, np.resize(factors, len(rows))), *rest])
    return float(np.abs(np.log(factors)).max())

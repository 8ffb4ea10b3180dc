"""Normalisation by the moments of each example, in operators that LiteRT runs; loads TensorFlow."""

from collections.abc import Callable
from typing import Any

from tfopt.compat import keras, tf


def _as_it_is(tensor: Any, part: str, **_: Any) -> Any:
    del part
    return tensor


def normalised(x: Any, axes: Any, epsilon: float, ranged: Callable = _as_it_is) -> Any:
    """Return `x` at mean 0 and variance 1 over `axes`, at less where that is near `epsilon`.

    `ranged(tensor, part, **options)` returns each tensor on the way as it is to be kept, those
    that aren't signed with nonnegative=True, and one whose range must not move with rate=0.0.
    """
    mean = ranged(tf.reduce_mean(x, axes, keepdims=True), "mean")
    centred = ranged(x - mean, "centred")
    square = ranged(centred * centred, "square", nonnegative=True)
    variance = ranged(tf.reduce_mean(square, axes, keepdims=True), "variance", nonnegative=True)
    positive = ranged(variance + epsilon, "positive", nonnegative=True)
    # Rounding may leave 0, of which TFLite takes the largest number of the range; that one
    # comes from calibration and doesn't move, or such zeros would widen it for ever.
    inverse = tf.math.rsqrt(tf.maximum(positive, epsilon))
    inverse = ranged(inverse, "inverse", nonnegative=True, rate=0.0)
    return ranged(centred * inverse, "unit")


def rewritten(layer: "keras.layers.Layer") -> Any:
    """Return an unbuilt layer like `layer` of operators that LiteRT runs, None where it is one."""
    other = {
        keras.layers.LayerNormalization: _OverAxes,
        keras.layers.GroupNormalization: _OverGroups,
    }.get(type(layer))
    return other and other.from_config(layer.get_config())


class _OverAxes(keras.layers.LayerNormalization):
    """A LayerNormalization that isn't the batch normalisation which Keras makes of it.

    For that it takes numbers of its own making for input, from which LiteRT dies in int16.
    """

    def call(self, inputs: Any) -> Any:
        """Return `inputs` normalised over the axes of the layer."""
        axes: Any = self.axis
        shape = [size if axis in axes else 1 for axis, size in enumerate(inputs.shape)]
        return _scaled(self, normalised(inputs, axes, self.epsilon), shape)


class _OverGroups(keras.layers.GroupNormalization):
    """A GroupNormalization of any batch: LiteRT can't resize the weighted moments of Keras's.

    One that is masked, or whose channels aren't last, stays as Keras has it.
    """

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Return `inputs` normalised over each group of channels."""
        inner, last = inputs.shape[1:], inputs.shape.rank - 1
        if mask is not None or self.axis not in (-1, last) or not inner.is_fully_defined():
            return super().call(inputs, mask)
        # Of 4 dimensions, since not all of TFLite's operators take more.
        grouped = (-1, inner[:-1].num_elements(), self.groups, inner[-1] // self.groups)
        unit = normalised(tf.reshape(inputs, grouped), (1, 3), self.epsilon)
        return _scaled(self, tf.reshape(unit, (-1, *inner)), inner[-1:])


def _scaled(layer: Any, unit: Any, shape: Any) -> Any:
    """Return `unit` with scale and offset of `layer`, which broadcast in `shape`."""
    if layer.gamma is not None:
        unit = unit * tf.reshape(layer.gamma, shape)
    return unit if layer.beta is None else unit + tf.reshape(layer.beta, shape)

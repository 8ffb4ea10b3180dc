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


def for_int16(layer: "keras.layers.Layer") -> Any:
    """Return an unbuilt layer like `layer` that LiteRT runs in int16, None where it is one."""
    made = type(layer) is keras.layers.LayerNormalization
    return _OverAxes.from_config(layer.get_config()) if made else None


class _OverAxes(keras.layers.LayerNormalization):
    """A LayerNormalization that isn't the batch normalisation which Keras makes of it.

    For that it takes numbers of its own making for input, from which LiteRT dies in int16.
    """

    def call(self, inputs: Any) -> Any:
        """Return `inputs` normalised over the axes of the layer."""
        shape = [size if axis in self.axis else 1 for axis, size in enumerate(inputs.shape)]
        return _scaled(self, normalised(inputs, self.axis, self.epsilon), shape)


def _scaled(layer: Any, unit: Any, shape: Any) -> Any:
    """Return `unit` with scale and offset of `layer`, which broadcast in `shape`."""
    if layer.gamma is not None:
        unit = unit * tf.reshape(layer.gamma, shape)
    return unit if layer.beta is None else unit + tf.reshape(layer.beta, shape)

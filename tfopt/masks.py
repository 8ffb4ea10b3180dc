"""The mask of steps that a tensor comes with, as a tensor and over operators that lose it.

Loads TensorFlow when imported.
"""

from typing import Any

from tfopt.compat import keras, tf


@keras.saving.register_keras_serializable(package="tfopt")
class Mask(keras.layers.Layer):
    """Returns the mask of steps that its input comes with, (batch, steps) of bool."""

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Return `mask`."""
        del inputs
        return tf.cast(mask, tf.bool)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """Return None: the mask has none itself."""


@keras.saving.register_keras_serializable(package="tfopt")
class Remasked(keras.layers.Layer):
    """Returns the first of two tensors with the mask of steps of the second."""

    def call(self, inputs: Any) -> Any:
        """Return the first of `inputs`."""
        return tf.identity(inputs[0])

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """Return the second mask."""
        del inputs
        return mask[1]


def is_masked(tensor: Any) -> bool:
    """Return whether the symbolic `tensor` comes with a mask of steps."""
    return getattr(tensor, "_keras_mask", None) is not None


def remasked(y: Any, x: Any, name: str | None = None) -> Any:
    """Return `y`, computed of `x` by operators, which lose a mask, with the one that `x` has."""
    return Remasked(name=name)([y, x]) if is_masked(x) and not is_masked(y) else y

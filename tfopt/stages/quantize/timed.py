"""TimeDistributed layers as what they apply, to all steps at once; loads TensorFlow."""

from collections.abc import Callable
from typing import Any

from tfopt.compat import keras, tf
from tfopt.graph import copied, operator, option
from tfopt.masks import remasked
from tfopt.stages.quantize.kinds import Kind, kind_of


def at_once(layer: Any) -> Callable:
    """Return what is called in place of `layer`: if it is TimeDistributed, what that applies.

    The layer inside, which takes the name of the one around it, sees (batch * steps, ...).
    """
    if not _is_plain(layer):
        return copied(layer)
    names = {"name": layer.name, "trainable": layer.trainable}
    inner = type(layer.layer).from_config({**layer.layer.get_config(), **names})

    def called(x: Any, **options: Any) -> Any:
        y = inner(_without_steps(x), **options)
        inner.set_weights(layer.get_weights())
        return remasked(tf.reshape(y, (-1, x.shape[1], *y.shape[1:])), x)

    return called


def _is_plain(layer: Any) -> bool:
    if not isinstance(layer, keras.layers.TimeDistributed) or kind_of(layer.layer) is Kind.UNKNOWN:
        return False
    shapes = [tensor.shape[1:] for tensor in tf.nest.flatten(layer.get_input_at(0))]
    return len(shapes) == 1 and None not in shapes[0] and option(layer, "mask") is None


def _without_steps(x: Any) -> Any:
    """Return `x` as (batch * steps, ...)."""
    source = x.node
    if operator(source.layer) == "reshape":
        # Of two in a row the second undoes the first, and would part a kernel from its norm.
        before = source.keras_inputs[0]
        if before.shape[1:] == x.shape[2:]:
            return before
    return tf.reshape(x, (-1, *x.shape[2:]))

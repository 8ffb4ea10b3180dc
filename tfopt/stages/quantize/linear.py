"""Linear maps as TFLite computes them, each of one operator; loads TensorFlow when imported."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tfopt.compat import keras, tf


def affine(scale: Any, offset: Any, name: str, *, trainable: bool) -> Callable:
    """Return a call that gives `x * scale + offset` by channel, `x` of 2 to 4 dimensions.

    A 1x1 depthwise convolution has exact codes for it and one operator, where a product and a
    sum would round twice.
    """
    made = keras.layers.DepthwiseConv2D(1, name=name, trainable=trainable)

    def called(x: Any) -> Any:
        inner = tuple(x.shape[1:])
        if len(inner) == 3:
            outputs = made(x)
        else:
            spread = (*inner[:-1], *[1] * (3 - len(inner)), inner[-1])
            outputs = tf.reshape(made(tf.reshape(x, (-1, *spread))), (-1, *inner))
        channels = np.broadcast_to(scale, inner[-1:]), np.broadcast_to(offset, inner[-1:])
        made.set_weights([channels[0].reshape(1, 1, -1, 1), channels[1]])
        return outputs

    return called


def dense(rewriter: Any, of: Any, name: str, kernel: Any, bias: Any, contracted: int) -> Callable:
    """Return a call that contracts the last dimensions of its input with the first of `kernel`."""
    kernel = np.asarray(kernel)
    taken, given = kernel.shape[:contracted], kernel.shape[contracted:]
    made = keras.layers.Dense(
        math.prod(given), use_bias=bias is not None, name=name, trainable=of.trainable
    )
    call = rewriter.kernel(made, of)

    def called(x: Any) -> Any:
        outer = x.shape[1 : len(x.shape) - contracted]
        x = call(x if contracted == 1 else tf.reshape(x, (-1, *outer, math.prod(taken))))
        values = [kernel.reshape(math.prod(taken), -1)]
        values += [] if bias is None else [np.broadcast_to(bias, given).ravel()]
        call.layer.set_weights(values)
        return x if len(given) == 1 else tf.reshape(x, (-1, *outer, *given))

    return called

"""Layers that TFLite computes by several operators, built of one layer for each operator.

Loads TensorFlow when imported. `rewriter` is the `rewrite.Rewriter` of the model.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from tfopt.compat import keras, tf
from tfopt.masks import Mask, is_masked
from tfopt.moments import normalised
from tfopt.stages.quantize import loops
from tfopt.stages.quantize.linear import affine, dense

# Scores that a mask takes out of a softmax: by less than any other, and in int8, which ends at
# the range's lower end, by so much less than the least one that their shares are below its step.
_MASKED, _ROOM = -256.0, 8.0


def can_build(layer: Any) -> bool:
    """Return whether `layer` is of a form that `build` knows."""
    shapes = [tuple(tensor.shape[1:]) for tensor in tf.nest.flatten(layer.get_input_at(0))]
    known = all(None not in shape for shape in shapes)
    return known and _FORMS[type(layer).__name__][0](layer, len(shapes[0]))


def build(rewriter: Any, layer: Any) -> Callable:
    """Return what is called in place of `layer`."""
    return _FORMS[type(layer).__name__][1](rewriter, layer)


def _einsum(rewriter: Any, layer: Any) -> Callable:
    taken = layer.equation.split(",")[1].split("->")
    contracted = sum(letter not in taken[1] for letter in taken[0])
    call = dense(rewriter, layer, layer.name, layer.kernel, layer.bias, contracted)
    return lambda x: rewriter.closed(layer, call(x))


def _is_dense(layer: Any, rank: int) -> bool:
    x, _, rest = layer.equation.replace("...", "").partition(",")
    kernel, _, y = rest.partition("->")
    count = sum(letter not in y for letter in kernel)
    outer, inner = x[: len(x) - count], x[len(x) - count :]
    plain = "..." not in layer.equation or len(outer) == 0
    return plain and count > 0 and kernel.startswith(inner) and y == outer + kernel[count:]


def _attention(rewriter: Any, layer: Any) -> Callable:
    projections = {
        name: dense(
            rewriter, layer, f"{layer.name}_{name}", *_scaled(projection, factor), contracted
        )
        for name, projection, factor, contracted in (
            # The scores' scale, which Keras gives the query.
            ("query", layer._query_dense, 1 / math.sqrt(layer._key_dim), 1),
            ("key", layer._key_dense, 1.0, 1),
            ("value", layer._value_dense, 1.0, 1),
            ("output", layer._output_dense, 1.0, 2),
        )
    }

    dropped = keras.layers.Dropout(layer._dropout, name=f"{layer.name}_dropout")

    def heads(name: str, x: Any) -> Any:
        projected = rewriter.ranged(projections[name](x), f"{layer.name}_{name}")
        return tf.transpose(projected, (0, 2, 1, 3))

    def called(
        query: Any, value: Any, key: Any = None, attention_mask: Any = None, **options: Any
    ) -> Any:
        keys = heads("key", value if key is None else key)
        scores = tf.matmul(heads("query", query), keys, transpose_b=True)
        masks = _masks(rewriter, layer, {"query": query, "value": value, "key": key})
        masks += [] if attention_mask is None else [_of_heads(tf.cast(attention_mask, tf.bool))]
        if options.get("use_causal_mask"):
            masks.append(np.tril(np.ones((1, 1, query.shape[1], value.shape[1]), bool)))
        shares = _softmax(rewriter, layer, scores, masks)
        shares = dropped(shares) if layer._dropout else shares
        mixed = tf.matmul(shares, heads("value", value))
        mixed = tf.transpose(rewriter.ranged(mixed, f"{layer.name}_mixed"), (0, 2, 1, 3))
        return rewriter.end(layer, projections["output"](mixed))

    return called


def _scaled(dense: Any, factor: float) -> tuple[np.ndarray, np.ndarray | None]:
    bias = None if dense.bias is None else factor * dense.bias.numpy()
    return factor * dense.kernel.numpy(), bias


def _softmax(rewriter: Any, layer: Any, scores: Any, masks: list) -> Any:
    room = {"below": _ROOM} if masks else {}
    rounded = rewriter.range(f"{layer.name}_scores", **room)
    scores = rounded(scores)
    if masks:
        mask = functools.reduce(tf.logical_and, masks)
        # In the same range, as TFLite's operator has it.
        scores = rounded(tf.where(mask, scores, _MASKED), learns=False)
    return rewriter.activated(scores, "softmax", layer, f"{layer.name}_softmax")


def _masks(rewriter: Any, layer: Any, taken: dict) -> list:
    """Return the masks of steps that the tensors `taken` by name come with.

    Each is (batch, heads, queries, keys) with 1 for what it is the same for.
    """
    masks = []
    for name, tensor in taken.items():
        if is_masked(tensor):
            mask = _steps(rewriter, tensor, f"{layer.name}_{name}_mask")
            steps = (tensor.shape[1], 1) if name == "query" else (1, tensor.shape[1])
            masks.append(tf.reshape(mask, (-1, 1, *steps)))
    return masks


def _steps(rewriter: Any, tensor: Any, name: str) -> Any:
    """Return the mask of steps of `tensor`, (batch, steps)."""
    mask, source = Mask(name=rewriter.named(name))(tensor), tensor.node
    while masked := [each for each in source.keras_inputs if is_masked(each)]:
        source = masked[0].node
    return rewriter.compared(mask, source.keras_inputs, f"{source.layer.name}_mask")


def _of_heads(mask: Any) -> Any:
    """Return `mask`, which may lack batch and heads, as (batch, heads, queries, keys)."""
    for _ in range(4 - len(mask.shape)):
        mask = tf.expand_dims(mask, -3)
    return mask


def _normalised(rewriter: Any, layer: Any) -> Callable:
    scale = 1.0 if layer.gamma is None else layer.gamma.numpy()
    offset = 0.0 if layer.beta is None else layer.beta.numpy()
    scaled = affine(scale, offset, layer.name, trainable=layer.trainable)

    def ranged(tensor: Any, part: str, **options: Any) -> Any:
        return rewriter.ranged(tensor, f"{layer.name}_{part}", **options)

    return lambda x: rewriter.end(layer, scaled(normalised(x, -1, layer.epsilon, ranged)))


def _constant_affine(rewriter: Any, layer: Any) -> Callable:
    if type(layer).__name__ == "Rescaling":
        scale, offset = np.asarray(layer.scale), np.asarray(layer.offset)
    else:
        deviation = np.maximum(np.sqrt(np.ravel(layer.variance)), keras.backend.epsilon())
        scale, offset = 1 / deviation, -np.ravel(layer.mean) / deviation

    scaled = affine(scale, offset, layer.name, trainable=False)
    return lambda x: rewriter.end(layer, scaled(x))


def _separable(rewriter: Any, layer: Any) -> Callable:
    flat = layer.rank == 1
    first: Any = keras.layers.DepthwiseConv1D if flat else keras.layers.DepthwiseConv2D
    second: Any = keras.layers.Conv1D if flat else keras.layers.Conv2D
    depthwise = rewriter.kernel(
        first(
            layer.kernel_size[0] if flat else layer.kernel_size,
            strides=layer.strides[0] if flat else layer.strides,
            padding=layer.padding,
            depth_multiplier=layer.depth_multiplier,
            dilation_rate=layer.dilation_rate[0] if flat else layer.dilation_rate,
            use_bias=False,
            name=f"{layer.name}_depthwise",
            trainable=layer.trainable,
        ),
        layer,
    )
    made = second(
        layer.filters, 1, use_bias=layer.use_bias, name=layer.name, trainable=layer.trainable
    )
    pointwise = rewriter.kernel(made, layer)
    values = layer.get_weights()

    def called(x: Any) -> Any:
        x = rewriter.ranged(depthwise(x), f"{layer.name}_depthwise")
        depthwise.layer.set_weights(values[:1])
        x = pointwise(x)
        pointwise.layer.set_weights(values[1:])
        return rewriter.closed(layer, x)

    return called


def _averaged(rewriter: Any, layer: Any) -> Callable:
    # Of its own for each number of inputs that a shared one is called with.
    @functools.cache
    def scaled(count: int) -> Callable:
        return affine(1 / count, 0.0, rewriter.named(layer.name), trainable=False)

    def called(tensors: list) -> Any:
        total = tensors[0]
        for tensor in tensors[1:]:
            total = keras.layers.Add(name=rewriter.named(f"{layer.name}_sum"))([total, tensor])
            total = rewriter.ranged(total, f"{layer.name}_sum")
        return rewriter.end(layer, scaled(len(tensors))(total))

    return called


def _is_plain_attention(layer: Any, rank: int) -> bool:
    alone = not isinstance(layer.get_output_at(0), (list, tuple))
    return alone and rank == 2 and tuple(layer._attention_axes) == (1,)


# By class: whether a layer, whose input has so many dimensions, is of the form that is built.
_FORMS: dict[str, tuple[Callable, Callable]] = {
    "EinsumDense": (_is_dense, _einsum),
    "MultiHeadAttention": (_is_plain_attention, _attention),
    "LayerNormalization": (lambda layer, rank: list(layer.axis) == [rank], _normalised),
    "Normalization": (
        lambda layer, rank: rank <= 3 and not layer.invert and layer.axis in ((rank,), (-1,), ()),
        _constant_affine,
    ),
    "Rescaling": (lambda _, rank: rank <= 3, _constant_affine),
    **dict.fromkeys(("Bidirectional", "GRU", "LSTM", "SimpleRNN"), (loops.is_plain, loops.build)),
    "Average": (lambda _, rank: 1 <= rank <= 3, _averaged),
    "SeparableConv1D": (lambda layer, _: layer.data_format == "channels_last", _separable),
    "SeparableConv2D": (lambda layer, _: layer.data_format == "channels_last", _separable),
}

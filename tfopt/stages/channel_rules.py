"""What each kind of layer does to the channels of the tensors that it takes.

A rule `(trace, node, *channels)` returns the channels of the output of one call of a layer, and
tells `trace` where the layer's weights have them; None says that it can't tell. Layers for which
there is no rule keep all of their channels.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

_ELEMENTWISE = {
    *("elu", "exponential", "gelu", "hard_sigmoid", "leaky_relu", "linear", "mish", "relu"),
    *("relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "swish", "tanh"),
}


def is_elementwise(activation: Any) -> bool:
    """Return whether `activation` computes each channel from that channel alone."""
    return getattr(activation, "__name__", "") in _ELEMENTWISE


def rule_of(layer: Any, count: int, constants: list) -> Callable | None:
    """Return the rule for `layer`, called with `count` tensors and `constants`; None for none."""
    kind, activation = type(layer), getattr(layer, "activation", None)
    if not kind.__module__.startswith("tf_keras."):  # one's own Dense may do anything
        return None
    if getattr(layer, "data_format", "channels_last") != "channels_last":
        return None
    if kind.__name__ == "Activation" and not is_elementwise(activation):
        return None
    if kind.__name__ == "TFOpLambda":
        scalars = all(np.ndim(constant) == 0 for constant in constants)
        return _merges if layer.symbol in _OPERATORS and scalars else None
    rule = _RULES.get(kind.__name__)
    return rule if count == 1 or rule in (_merges, _concatenates) else None


def _passes(trace: Any, node: Any, ids: Any) -> Any:
    return ids


def _merges(trace: Any, node: Any, *tensors: Any) -> Any:
    """Operate on tensors element by element, where a last axis of 1 is broadcast."""
    widest = max(tensors, key=len)
    for ids in tensors:
        if len(ids) == len(widest):
            trace.join(widest, ids)
        else:
            trace.fix(ids)
    return widest


def _concatenates(trace: Any, node: Any, *tensors: Any) -> Any:
    if _is_last(node.layer.axis, node):
        return np.concatenate(tensors)
    return _merges(trace, node, *tensors)


def _reshapes(trace: Any, node: Any, ids: Any) -> Any:
    """Flatten, or reshape so that a row of the output is one or several whole rows of before."""
    width = node.outputs.shape[-1]
    if width is None or width % len(ids):
        return None
    tiled = np.tile(ids, width // len(ids))
    if hasattr(node.layer, "target_shape"):
        trace.state(node.layer, "target_shape", tiled)
    return tiled


def _normalises(trace: Any, node: Any, ids: Any) -> Any:
    # What LayerNormalization makes of channels depends on the others: with fewer of them it
    # has other statistics, which fine-tuning must settle.
    if not _is_last(node.layer.axis, node):
        return None
    for weight in node.layer.weights:
        trace.mark(node.layer, weight, 0, ids)
    return ids


def _has_slopes(trace: Any, node: Any, ids: Any) -> Any:
    if node.layer.alpha.shape[-1] == len(ids):
        trace.mark(node.layer, node.layer.alpha, -1, ids)
    return ids


def _rescales(trace: Any, node: Any, ids: Any) -> Any:
    scalars = np.ndim(node.layer.scale) == np.ndim(node.layer.offset) == 0
    return ids if scalars else None


def _embeds(trace: Any, node: Any, ids: Any) -> Any:
    layer = node.layer
    made = trace.make(layer, layer.output_dim, "output_dim")
    trace.mark(layer, layer.embeddings, -1, made, makes=True)
    return made


def _multiplies(trace: Any, node: Any, ids: Any) -> Any:
    """Dense."""
    return _made(trace, node.layer, ids, node.layer.kernel, "units")


def _convolves(trace: Any, node: Any, ids: Any) -> Any:
    if node.layer.groups > 1:
        return None
    return _made(trace, node.layer, ids, node.layer.kernel, "filters")


def _convolves_back(trace: Any, node: Any, ids: Any) -> Any:
    return _made(trace, node.layer, ids, node.layer.kernel, "filters", reads=-1, makes=-2)


def _convolves_each(trace: Any, node: Any, ids: Any) -> Any:
    """Depthwise: every channel becomes `depth_multiplier` of its own."""
    layer = node.layer
    made = ids if layer.depth_multiplier == 1 else np.repeat(ids, layer.depth_multiplier)
    trace.mark(layer, layer.depthwise_kernel, -2, ids, makes=True)
    trace.mark(layer, layer.bias, 0, made)
    if not is_elementwise(layer.activation):
        trace.fix(ids)
    return made


def _convolves_apart(trace: Any, node: Any, ids: Any) -> Any:
    """Depthwise and pointwise in one layer."""
    layer = node.layer
    trace.mark(layer, layer.depthwise_kernel, -2, ids)
    between = np.repeat(ids, layer.depth_multiplier)
    return _made(trace, layer, between, layer.pointwise_kernel, "filters")


def _made(
    trace: Any, layer: Any, ids: Any, kernel: Any, field: str, reads: int = -2, makes: int = -1
) -> Any:
    made = trace.make(layer, kernel.shape[makes], field)
    trace.mark(layer, kernel, reads, ids)
    trace.mark(layer, kernel, makes, made, makes=True)
    trace.mark(layer, layer.bias, 0, made)
    return made


def _is_last(axis: Any, node: Any) -> bool:
    """Return whether `axis`, a number or a list of one, is the last of the node's output."""
    rank = len(node.outputs.shape)
    return [number % rank for number in np.atleast_1d(axis)] == [rank - 1]


def _named(rule: Callable, *patterns: str) -> dict[str, Callable]:
    """Return `rule` by each name; a `*` stands for each of 1D, 2D and 3D."""
    ends = ("1D", "2D", "3D")
    return {pattern.replace("*", end): rule for pattern in patterns for end in ends}


_RULES: dict[str, Callable] = {
    **_named(_passes, "Activation", "ReLU", "LeakyReLU", "ELU", "ThresholdedReLU"),
    **_named(_passes, "Dropout", "SpatialDropout*", "AlphaDropout"),
    **_named(_passes, "GaussianNoise", "GaussianDropout", "ActivityRegularization"),
    **_named(_passes, "MaxPooling*", "AveragePooling*", "GlobalMaxPooling*"),
    **_named(_passes, "GlobalAveragePooling*", "ZeroPadding*", "Cropping*", "UpSampling*"),
    **_named(_passes, "RepeatVector"),
    **_named(_merges, "Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum"),
    **_named(_concatenates, "Concatenate"),
    **_named(_reshapes, "Flatten", "Reshape"),
    **_named(_normalises, "BatchNormalization", "LayerNormalization"),
    **_named(_has_slopes, "PReLU"),
    **_named(_rescales, "Rescaling"),
    **_named(_embeds, "Embedding"),
    **_named(_multiplies, "Dense"),
    **_named(_convolves, "Conv*"),
    **_named(_convolves_back, "Conv2DTranspose", "Conv3DTranspose"),
    **_named(_convolves_each, "DepthwiseConv1D", "DepthwiseConv2D"),
    **_named(_convolves_apart, "SeparableConv1D", "SeparableConv2D"),
}
_OPERATORS = {
    *("__operators__.add", "math.add", "math.subtract", "math.multiply", "math.truediv"),
    *("math.divide", "math.maximum", "math.minimum", "math.negative", "math.abs", "math.square"),
    *("math.sigmoid", "math.tanh", "nn.relu", "nn.relu6", "nn.silu", "nn.gelu", "nn.elu"),
    *("nn.leaky_relu", "clip_by_value"),
}

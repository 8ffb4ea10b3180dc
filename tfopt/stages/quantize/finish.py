"""What is left of a quantization-aware model when its training is over; loads TensorFlow."""

from collections.abc import Callable
from typing import Any

from tfopt.compat import keras
from tfopt.graph import consumers, copied, producers, rebuilt
from tfopt.masks import remasked
from tfopt.rounding import Remark, Rounded
from tfopt.stages.fold import by_output, factors
from tfopt.stages.quantize.linear import affine


def finished(model: "keras.Model") -> "keras.Model":
    """Return `model` with rounded kernels in plain layers, and BatchNormalization folded.

    A kernel that a BatchNormalization follows takes its factors, channel by channel, which
    leaves its codes as they were trained; any other one becomes a 1x1 depthwise convolution.
    """
    after, before = consumers(model), producers(model)

    def norm_of(layer: Any) -> Any:
        following = after[layer.name]
        alone = len(following) == 1 and _is_norm(following[0])
        return following[0] if alone and len(before[following[0].name]) == 1 else None

    def replace(layer: Any) -> Callable:
        if isinstance(layer, Rounded):
            return _plain(layer, norm_of(layer))
        if not _is_norm(layer) or any(isinstance(each, Remark) for each in after[layer.name]):
            return copied(layer)
        (source,) = before[layer.name][:1]
        if isinstance(source, Rounded) and norm_of(source) is layer:
            return lambda x, **_: x
        scale, offset = factors(layer)
        return lambda x, **_: remasked(
            affine(x, scale, offset, layer.name, trainable=layer.trainable),
            x,
            f"{layer.name}_masked",
        )

    return rebuilt(model, replace)


def _plain(rounded: Rounded, norm: Any) -> Callable:
    config = rounded.layer.get_config()
    kernel, bias = rounded.rounded().numpy(), rounded.layer.bias
    values = [kernel] if bias is None else [kernel, bias.numpy()]
    if norm is not None:
        scale, offset = factors(norm)
        values = [
            kernel * by_output(rounded.layer, scale),
            offset + scale * (0 if bias is None else bias.numpy()),
        ]
    made = type(rounded.layer).from_config({**config, "use_bias": len(values) == 2})

    def called(x: Any) -> Any:
        outputs = made(x)
        made.set_weights(values)
        return outputs

    return called


def _is_norm(layer: Any) -> bool:
    return isinstance(layer, keras.layers.BatchNormalization)

"""What is left of a quantization-aware model when its training is over; loads TensorFlow."""

from collections.abc import Callable
from typing import Any

from tfopt.compat import keras
from tfopt.graph import consumers, copied, only, producers, rebuilt
from tfopt.masks import Remasked, is_masked
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
        following = only(after[layer.name])
        alone = _is_norm(following) and only(before[following.name]) is layer
        return following if alone else None

    def replace(layer: Any) -> Callable:
        if isinstance(layer, Rounded):
            return _plain(layer, norm_of(layer))
        if not _is_norm(layer) or any(isinstance(each, Remark) for each in after[layer.name]):
            return copied(layer)
        (source,) = before[layer.name][:1]
        if isinstance(source, Rounded) and norm_of(source) is layer:
            return lambda x, **_: x
        scaled = affine(*factors(layer), layer.name, trainable=layer.trainable)
        masked = Remasked(name=f"{layer.name}_masked")
        return lambda x, **_: masked([scaled(x), x]) if is_masked(x) else scaled(x)

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

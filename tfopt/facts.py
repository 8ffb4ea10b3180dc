"""What is true of a Keras model: zeros, sizes, parameters, multiply-accumulates.

Stages compare facts from before and after; nobody trusts a flag that says what was done.
"""

import math
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tfopt.compat import keras
from tfopt.macs import positions

KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel", "embeddings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """One weight matrix of a layer, whatever wrapper the layer is in.

    `name` tells it from the others of the layer, such as "kernel" or "query/kernel"; `inner_type`
    is the class of what a TimeDistributed applies, else `layer_type` again; `distinct` is the
    largest number of distinct values in one output channel, `distinct_total` that of the whole
    matrix.
    """

    layer: str
    layer_type: str
    inner_type: str
    name: str
    shape: tuple[int, ...]
    zeros: int
    distinct: int
    distinct_total: int

    @property
    def key(self) -> str:
        """The name in `kernel_variables`: `layer/name`."""
        return f"{self.layer}/{self.name}"

    @property
    def size(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)

    @property
    def channels(self) -> int:
        """The number of output channels."""
        return _channel_count(self.shape, self.name, self.inner_type)

    @property
    def nonzeros(self) -> int:
        """The number of weights that aren't zero."""
        return self.size - self.zeros

    @property
    def channel_nonzeros(self) -> int:
        """The number of weights of an output channel that aren't zero, on the average."""
        return self.nonzeros // self.channels


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the checks and the report want to know of a Keras model.

    `params` counts the weights of the plain model (no masks, no quantization ranges);
    `macs` are the multiply-accumulates of its kernels for one example.
    """

    kernels: tuple[Kernel, ...]
    params: int
    macs: int

    @property
    def sparsity(self) -> float:
        """The share of zeros in all kernels."""
        return sparsity(self.kernels)

    def to_json(self) -> dict:
        """Return the facts as plain JSON values."""
        return {**asdict(self), "sparsity": self.sparsity}


def sparsity(kernels: Any) -> float:
    """Return the share of zeros over all of `kernels`; 0 where there are none."""
    size = sum(kernel.size for kernel in kernels)
    return sum(kernel.zeros for kernel in kernels) / size if size else 0.0


def measure(model: "keras.Model") -> Facts:
    """Return the facts of `model`, wrapped for a stage or plain."""
    kernels, params, macs = [], 0, 0
    for layer, weights in _plain_layers(model):
        params += sum(math.prod(weight.shape) for weight in weights)
        for name, weight in _named(weights):
            values, inner = np.asarray(weight.numpy()), inner_type(unwrapped(layer))
            kernel = Kernel(
                layer=unwrapped(layer).name,
                layer_type=type(unwrapped(layer)).__name__,
                inner_type=inner,
                name=name,
                shape=values.shape,
                zeros=int(values.size - np.count_nonzero(values)),
                distinct=_distinct(channels(values, name, inner)),
                distinct_total=_distinct(values.reshape(-1, 1)),
            )
            kernels.append(kernel)
            macs += positions(model, layer, weight) * kernel.size
    return Facts(kernels=tuple(kernels), params=params, macs=macs)


def inner_type(layer: Any) -> str:
    """Return the class of `layer`, or of the one that it applies at each time step."""
    while isinstance(layer, keras.layers.TimeDistributed):
        layer = layer.layer
    return type(layer).__name__


def is_transposed(inner_type: str) -> bool:
    """Return whether kernels of layers of this class have their outputs before their inputs."""
    return inner_type.endswith("Transpose")


def channels(kernel: np.ndarray, name: str, inner_type: str) -> np.ndarray:
    """Return `kernel` as (weights of a channel, output channels).

    `name` is the weight's own, such as "depthwise_kernel", or a path that ends in it.
    """
    if is_transposed(inner_type):
        kernel = np.swapaxes(kernel, -1, -2)
    return kernel.reshape(-1, _channel_count(kernel.shape, name, ""))


def from_channels(columns: np.ndarray, shape: tuple[int, ...], inner_type: str) -> np.ndarray:
    """Return what `channels` made of a kernel of `shape` in that shape again."""
    if not is_transposed(inner_type):
        return columns.reshape(shape)
    return np.swapaxes(columns.reshape(*shape[:-2], shape[-1], shape[-2]), -1, -2)


def is_quantized(model: "keras.Model") -> bool:
    """Return whether `model` is quantization-aware, and so can only become a quantized file."""
    return activation_bits(model) > 0


def activation_bits(model: "keras.Model") -> int:
    """Return the bits that the activations of `model` were trained for, 0 for a float one."""
    # Deferred, since it loads TensorFlow.
    from tfopt.rounding import Range

    return max((layer.bits for layer in model.layers if isinstance(layer, Range)), default=0)


def kernel_variables(model: "keras.Model") -> dict[str, Any]:
    """Return the kernel variables of each layer by `Kernel.key`, through any wrapper."""
    return {
        f"{unwrapped(layer).name}/{name}": weight
        for layer, weights in _plain_layers(model)
        for name, weight in _named(weights)
    }


def unwrapped(layer: Any) -> Any:
    """Return the layer that a stage has wrapped in `layer`, or `layer` itself."""
    # Deferred, since it loads TensorFlow.
    from tfopt.rounding import Rounded

    # Keras has wrappers of its own, as Bidirectional, whose layer is a part of them.
    wrapped = isinstance(layer, Rounded) or hasattr(layer, "pruning_vars")
    return layer.layer if wrapped else layer


def weight_name(weight: Any) -> str:
    """Return the name of the variable `weight` within its layer, such as "kernel"."""
    return weight.name.split("/")[-1].split(":")[0]


def kernels_of(layer: Any) -> list[tuple[str, Any]]:
    """Return the names, as in `Kernel`, and the variables of the kernels of one `layer`."""
    return _named(layer.weights)


def _named(weights: list) -> list[tuple[str, Any]]:
    """Return the kernels among the `weights` of a layer by names that no two of them share.

    Those of the layers inside, as of attention, are named by what their paths don't share. The
    numbers that Keras puts behind a name differ from one load to the next: those go.
    """
    kernels = [weight for weight in weights if weight_name(weight) in KERNELS]
    paths = [re.sub(r"_\d+(?=/)", "", weight.name.split(":")[0]).split("/") for weight in kernels]
    shared = len(os.path.commonprefix([path[:-1] for path in paths]))
    names = ["/".join(path[shared:]) for path in paths]
    again = [names[:index].count(name) for index, name in enumerate(names)]
    return [
        (f"{name}_{number}" if number else name, weight)
        for name, number, weight in zip(names, again, kernels, strict=True)
    ]


def _plain_layers(model: "keras.Model") -> Iterator[tuple[Any, list]]:
    """Yield each layer with its own weights, without those that a wrapper added or a range.

    A pruning wrapper's `.layer.kernel` is a symbolic tensor once it was called, so weights
    are found by name among the variables of the inner layer, which tfmot leaves in place.
    """
    from tfopt.rounding import Range

    for layer in model.layers:
        weights = [*unwrapped(layer).weights, *layer.trainable_weights]
        own = {id(weight): weight for weight in weights}
        if own and not isinstance(layer, Range):
            yield layer, list(own.values())


def _channel_count(shape: tuple[int, ...], name: str, inner_type: str) -> int:
    if is_transposed(inner_type):
        return shape[-2]
    # A depthwise kernel makes each of its (channel, multiplier) pairs on its own.
    return math.prod(shape[-2:] if "depthwise_kernel" in name else shape[-1:])


def _distinct(by_channel: np.ndarray) -> int:
    return int((np.diff(np.sort(by_channel, 0), axis=0) != 0).sum(0).max(initial=0)) + 1

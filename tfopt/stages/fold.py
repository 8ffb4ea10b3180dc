"""Layers that are a kernel and a bias, and BatchNormalization folded into them."""

from typing import Any

import numpy as np

from tfopt.compat import keras
from tfopt.graph import consumers, copied, producers, rebuilt

_LINEAR = ("Conv1D", "Conv2D", "Conv2DTranspose", "Conv3D", "Dense", "DepthwiseConv2D")


def linear(model: "keras.Model") -> dict[str, Any]:
    """Return by name the layers of `model` that are a kernel and a bias and are called once."""
    calls = producers(model)
    return {
        layer.name: layer
        for layer in model.layers
        if type(layer).__name__ in _LINEAR and len(calls[layer.name]) == 1
    }


def by_output(layer: Any, values: np.ndarray) -> np.ndarray:
    """Return a value for each output channel of `layer` in the shape that its kernel takes."""
    if "depthwise" in type(layer).__name__.lower():
        return values.reshape(-1, layer.depth_multiplier)
    return values[:, None] if type(layer).__name__ == "Conv2DTranspose" else values


def by_input(layer: Any, values: np.ndarray) -> np.ndarray:
    """Return a value for each input channel of `layer` in the shape that its kernel takes."""
    return values if type(layer).__name__ == "Conv2DTranspose" else values[:, None]


def output_rows(layer: Any, kernel: np.ndarray) -> np.ndarray:
    """Return `kernel`, of the shape that `layer` has, as (output channels, weights of one)."""
    count = layer.output_shape[-1]
    numbers = np.broadcast_to(by_output(layer, np.arange(count)), kernel.shape)
    return kernel.ravel()[np.argsort(numbers, axis=None, kind="stable")].reshape(count, -1)


def input_rows(layer: Any, kernel: np.ndarray) -> np.ndarray:
    """Return `kernel`, of the shape that `layer` has, as (input channels, weights of one)."""
    axis = -1 if type(layer).__name__ == "Conv2DTranspose" else -2
    return np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1)


def folded(model: "keras.Model") -> "keras.Model":
    """Return a copy of `model` without each BatchNormalization that a kernel can take in.

    That is one directly after a convolution or Dense without activation, whose kernel and bias
    are scaled instead, as the TFLite converter does (Jacob et al. 2017, section 3.2). All
    these layers have a bias afterwards. The copy computes the same, in inference.
    """
    model = rebuilt(model)
    layers, norms = linear(model), _norms(model)
    swallowed = {norm.name for norm in norms.values()}

    def replace(layer: Any) -> Any:
        if layer.name in swallowed:
            return lambda x, **_: x
        if layer.name in layers:
            return type(layer).from_config({**layer.get_config(), "use_bias": True})
        return copied(layer)

    made = rebuilt(model, replace)
    for name, layer in layers.items():
        kernel, *bias = layer.get_weights()
        bias = bias[0] if bias else np.zeros(layer.output_shape[-1], kernel.dtype)
        if name in norms:
            scale, offset = factors(norms[name])
            kernel, bias = kernel * by_output(layer, scale), bias * scale + offset
        made.get_layer(name).set_weights([kernel, bias])
    return made


def _norms(model: Any) -> dict[str, Any]:
    """Return by the name of a linear layer the BatchNormalization that it can take in."""
    takers, calls, found = consumers(model), producers(model), {}
    for name, layer in linear(model).items():
        after = takers[name]
        alone = len(after) == 1 and name not in model.output_names
        if alone and layer.activation is keras.activations.linear:
            norm: Any = after[0]
            if isinstance(norm, keras.layers.BatchNormalization) and len(calls[norm.name]) == 1:
                by_channel = norm.axis == [len(layer.output_shape) - 1]
                found |= {name: norm} if by_channel else {}
    return found


def factors(norm: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return by channel what BatchNormalization `norm` multiplies and then adds, in inference."""
    scale = 1 / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    scale = scale if norm.gamma is None else scale * norm.gamma.numpy()
    offset = -norm.moving_mean.numpy() * scale
    return scale, offset if norm.beta is None else offset + norm.beta.numpy()

"""The few blocks that all families are tables of.

Every layer is named, and of a kind and in an order that quantization-aware training accepts:
a BatchNormalization directly after its convolution, then ReLU; `Add` and no operators.
Convolutions have no bias, as the BatchNormalization would subtract it again.
"""

import math
from collections.abc import Sequence
from typing import Any, Protocol

from tfopt.compat import keras
from tfopt.errors import ConfigError

# Keras's default of 0.99 takes about 500 steps to forget the start; a stage may be shorter.
_MOMENTUM = 0.9
_CEILING = {"relu": None, "relu6": 6.0}


class DataSpec(Protocol):
    """What a model asks of its data: one example's `shape` and the number of `classes`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example without the batch."""
        ...

    @property
    def classes(self) -> int:
        """The number of classes."""
        ...


def image_input(spec: DataSpec) -> Any:
    """Return the input of images of shape (height, width, channels), or raise ConfigError."""
    if len(spec.shape) != 3:
        raise ConfigError(
            "config.model: expected data of shape (height, width, channels), received examples "
            f"of shape {tuple(spec.shape)}; use models.MLP or reshape them in config.data."
        )
    return keras.Input(spec.shape, name="input")


def conv(
    x: Any,
    filters: int,
    name: str,
    *,
    kernel: int | tuple[int, int] = 3,
    strides: int | tuple[int, int] = 1,
    activation: str | None = "relu",
) -> Any:
    """Convolve and normalise, then "relu", "relu6" or nothing."""
    made = keras.layers.Conv2D(
        filters,
        kernel,
        strides=strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )
    return _normalise(made(x), name, activation)


def depthwise(x: Any, name: str, *, stride: int = 1, activation: str = "relu") -> Any:
    """Convolve each channel on its own, 3x3, then normalise and activate."""
    made = keras.layers.DepthwiseConv2D(
        3,
        strides=stride,
        padding="same",
        use_bias=False,
        depthwise_initializer="he_normal",
        name=name,
    )
    return _normalise(made(x), name, activation)


def separable(x: Any, filters: int, name: str, *, stride: int = 1, activation: str = "relu") -> Any:
    """Depthwise, then 1x1: the block of MobileNetV1 (Howard et al. 2017) and DS-CNN."""
    x = depthwise(x, f"{name}_depthwise", stride=stride, activation=activation)
    return conv(x, filters, f"{name}_pointwise", kernel=1, activation=activation)


def residual(x: Any, filters: int, name: str, *, stride: int = 1) -> Any:
    """Two 3x3 convolutions around a shortcut (He et al. 2015, fig. 2).

    Where the shape changes the shortcut is a 1x1 projection, the paper's option B: option A
    skips pixels and pads channels, for which QAT has no layers.
    """
    shortcut = x
    if stride > 1 or x.shape[-1] != filters:
        shortcut = conv(x, filters, f"{name}_shortcut", kernel=1, strides=stride, activation=None)
    x = conv(x, filters, f"{name}_conv1", strides=stride)
    x = conv(x, filters, f"{name}_conv2", activation=None)
    x = keras.layers.Add(name=f"{name}_add")([x, shortcut])
    return keras.layers.ReLU(name=f"{name}_relu")(x)


def inverted_residual(x: Any, filters: int, name: str, *, expansion: int, stride: int = 1) -> Any:
    """Expand, depthwise, project without activation (Sandler et al. 2018, table 1)."""
    before = x
    if expansion > 1:
        x = conv(x, expansion * x.shape[-1], f"{name}_expand", kernel=1, activation="relu6")
    x = depthwise(x, f"{name}_depthwise", stride=stride, activation="relu6")
    x = conv(x, filters, f"{name}_project", kernel=1, activation=None)
    if stride == 1 and before.shape[-1] == filters:
        x = keras.layers.Add(name=f"{name}_add")([x, before])
    return x


def dense(x: Any, units: int, name: str) -> Any:
    """Dense with its ReLU inside, which QAT and TFLite take as one operation."""
    made = keras.layers.Dense(units, activation="relu", kernel_initializer="he_normal", name=name)
    return made(x)


def classify(inputs: Any, features: Any, spec: DataSpec, name: str) -> "keras.Model":
    """Close the model with a Dense "logits"; pool features that are still maps."""
    if len(features.shape) == 4:
        features = keras.layers.GlobalAveragePooling2D(name="pool")(features)
    logits = keras.layers.Dense(spec.classes, name="logits")(features)
    return keras.Model(inputs, logits, name=name)


def fitted_strides(strides: Sequence[int], shape: Sequence[int]) -> list[int]:
    """Return `strides` with the earliest set to 1 until the last map has 3 rows and columns.

    ImageNet's 224 pixels stand 5 halvings, 32 pixels 3 and 8 pixels 1; the early ones are
    the ones to spare, as a small image has no detail to lose there.
    """
    fitted = list(strides)
    for index in range(len(fitted)):
        if math.ceil(min(shape[:2]) / math.prod(fitted)) >= 3:
            break
        fitted[index] = 1
    return fitted


def _normalise(x: Any, name: str, activation: str | None) -> Any:
    x = keras.layers.BatchNormalization(momentum=_MOMENTUM, name=f"{name}_bn")(x)
    if activation is None:
        return x
    return keras.layers.ReLU(_CEILING[activation], name=f"{name}_{activation}")(x)

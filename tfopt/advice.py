"""What helps against the noise of a layer, written as it is in a config."""

import math
from dataclasses import dataclass

import numpy as np

from tfopt.tflite import flatgraph

# How far the greatest channel is above the median one, and an outlier above 99.9% of the rest.
_UNEQUAL, _FAR_OUT = 8.0, 4.0
# The same of the weights of the greatest input above those of the least, pruned ones aside.
_WIDE = 64.0


@dataclass(frozen=True, slots=True)
class _Remedies:
    """What there is to be done, as it is written in a config."""

    data: str
    clip: str
    equalize: str
    finer: str
    eight: str


_AFTERWARDS = _Remedies(
    data="calibrate on more examples",
    clip="calibrate with MSE() or Percentile()",
    equalize="Equalize()",
    finer="Int16x8() (about 100 times slower on a CPU)",
    eight="bits=8 or weights=MSE()",
)
# What was trained for it brings its ranges along.
_TRAINED = _Remedies(
    data="more calibration_batches, or more epochs, of Quantize",
    clip="more epochs of Quantize",
    equalize="Equalize() before Quantize",
    finer="Quantize(activations=16) (about 100 times slower on a CPU)",
    eight="layers=(Bits(layers=..., weights=8),) of Quantize",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """What there is for a layer: values, the tensor's details, the kernel, its float weights.

    `owner` is the layer that the kernel is of, which another one may be fused with.
    """

    values: np.ndarray
    details: dict
    owner: str = ""
    kernel: flatgraph.Tensor | None = None
    weights: np.ndarray | None = None

    @property
    def step(self) -> float:
        """The difference between two codes; 0 where the tensor is float."""
        return self.details["quantization"][0]

    @property
    def limits(self) -> tuple[float, float]:
        """The least and the greatest value that has a code."""
        if not self.step:
            return -np.inf, np.inf
        codes, zero_point = np.iinfo(self.details["dtype"]), self.details["quantization"][1]
        return (codes.min - zero_point) * self.step, (codes.max - zero_point) * self.step


def advise(layer: str, signal: np.ndarray, output: Output, *, trained: bool) -> str:
    """Return what helps against the greatest of cutting off, rounding and a kernel.

    `signal` is what is computed in float on the inputs that gave `output`; `trained` says
    whether the model was trained for quantization. `layer` is what the config can keep float,
    "" where it is nothing.
    """
    remedies = _TRAINED if trained else _AFTERWARDS
    keep = _keeping(layer, output.kernel, trained) if layer else ""
    noise = np.mean((output.values - signal.reshape(output.values.shape)) ** 2)
    step, (low, high) = output.step, output.limits
    if np.mean((signal - np.clip(signal, low, high)) ** 2) > noise / 2:
        return f"its range cuts values off: {remedies.data}{keep}"
    if step**2 / 12 > noise / 4:
        if is_unequal(signal):
            return f"{to_equalize(trained=trained)}{keep}"
        if max(-low, high) > _FAR_OUT * np.percentile(np.abs(signal), 99.9):
            return f"outliers take the whole range: {remedies.clip}{keep}"
        return f"8 bit are too coarse for its outputs: {remedies.finer}{keep}"
    kernel = output.kernel
    if kernel is not None and kernel.dtype == "int4":
        return f"4 bit are too coarse for its kernel: {remedies.eight}{keep}"
    if output.weights is not None and _is_wide(output.weights):
        return f"some inputs take the whole range of its kernel: {remedies.equalize}{keep}"
    return f"its inputs or its kernel are too coarse: {remedies.finer}{keep}"


def to_equalize(*, trained: bool) -> str:
    """Return what helps a layer whose channels are unequal."""
    remedies = _TRAINED if trained else _AFTERWARDS
    return f"few of its channels take the whole range: {remedies.equalize}"


def is_unequal(signal: np.ndarray) -> bool:
    """Return whether few channels of `signal`, (..., channels), are far above the others."""
    peaks = np.abs(signal).reshape(-1, signal.shape[-1]).max(0)
    return peaks.max() > _UNEQUAL * np.median(peaks)


def _keeping(layer: str, kernel: flatgraph.Tensor | None, trained: bool) -> str:
    """Return how to keep `layer` float, and what that costs."""
    how = f"layers=(Float(layers=({layer!r},)),)" if trained else f"exclude=({layer!r},)"
    if kernel is None or kernel.dtype == "float32":
        return f", or keep it float with {how}"
    more = math.prod(kernel.shape) * (32 - (4 if kernel.dtype == "int4" else 8)) // 8
    return f", or keep it float with {how} ({more:,} bytes more)"


def _is_wide(weights: np.ndarray) -> bool:
    """Return whether the rows of `weights`, (..., inputs, outputs), have very unequal peaks."""
    peaks = np.abs(np.moveaxis(weights, -2, 0)).reshape(weights.shape[-2], -1).max(1)
    return peaks.max() > _WIDE * np.min(peaks, where=peaks > 0, initial=peaks.max())

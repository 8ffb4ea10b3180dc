"""Where an artifact and its Keras model part, layer by layer, and what to do about it."""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfopt import flatbuffer
from tfopt.compat import keras, litert, tf
from tfopt.export import Artifact
from tfopt.export.inputs import by_name
from tfopt.facts import is_quantized, kernel_variables
from tfopt.graph import computed
from tfopt.runner import Runner

# In dB: noise of a tenth of the signal. A layer that is well in 8 bit has 30 to 45.
_ENOUGH, MOST_DB = 20.0, 120.0
# How far the greatest channel is above the median one, and an outlier above 99.9% of the rest.
_UNEQUAL, _FAR_OUT = 8.0, 4.0
# The same of the weights of the greatest input above those of the least, pruned ones aside.
_WIDE = 64.0
_EQUALIZE = "few of its channels take the whole range"


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
    eight="bits=8, weights=GPTQ()",
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
class Noise:
    """How far one layer of an artifact is off, as ratios of signal to noise in dB.

    `own_db` is what the layer itself adds: the Keras layer on the artifact's own inputs is the
    signal. `sqnr_db` is what it has come to after all layers before it: the Keras model on the
    same examples is the signal. `advice` is empty where nothing need be done.
    """

    layer: str
    own_db: float
    sqnr_db: float
    advice: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Output:
    """What there is for a layer: values, the tensor's details, the kernel, its float weights."""

    values: np.ndarray
    details: dict
    kernel: flatbuffer.Tensor | None = None
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


def debug(artifact: Artifact, model: "keras.Model", examples: Any) -> tuple[Noise, ...]:
    """Return the noise of each layer that can be told in the artifact, worst first.

    One of several fused layers counts as the last, and layers that are called twice are left
    out. Both run once over `examples` as floats, and the Keras layers once more each on what
    the artifact gave the layer before.
    """
    outputs = _outputs(artifact, model, examples)
    expected = _expected(model, examples, outputs)
    trained = is_quantized(model)
    remedies = _TRAINED if trained else _AFTERWARDS
    found: list[Noise] = []
    advice: dict[str, str] = {}
    unequal: list[str] = []

    def substitute(layer: Any, *args: Any, **kwargs: Any) -> Any:
        signal = layer(*args, **kwargs)
        if layer.name not in expected:
            return signal
        output, clean = outputs[layer.name], np.asarray(signal)
        own, after_all = (_decibels(x, output.values) for x in (clean, expected[layer.name]))
        found.append(Noise(layer=layer.name, own_db=own, sqnr_db=after_all, advice=""))
        keep = _keeping(layer.name, output.kernel, trained)
        advice[layer.name] = _advice(remedies, keep, clean, output)
        if output.step and _is_unequal(_channel_peaks(clean)):
            unequal.append(layer.name)
        return tf.constant(output.values.reshape(clean.shape), signal.dtype)

    inputs = _inputs(model, examples).items()
    computed(model, [substitute(model.get_layer(name), x) for name, x in inputs], substitute)
    found.sort(key=lambda noise: noise.own_db)
    noisy = [noise.layer for noise in found if noise.own_db < _ENOUGH]
    if not noisy and min(noise.sqnr_db for noise in found) < _ENOUGH:
        # Channels that are lost beside a great one are no noise to speak of, until a later
        # layer multiplies them; without any, it is the sum that is too much.
        advice |= dict.fromkeys(unequal, f"{_EQUALIZE}: {remedies.equalize}")
        noisy = unequal or [found[0].layer]
    return tuple(replace(n, advice=advice[n.layer]) if n.layer in noisy else n for n in found)


def layer_errors(artifact: Artifact, model: "keras.Model", examples: Any) -> dict:
    """Return by layer, in the order of computation, how far the artifact's output is off.

    That is the norm of the difference over that of the Keras layer's output. Tensors are
    found by the layers in their names; one of several fused layers counts as the last.
    """
    outputs = _outputs(artifact, model, examples)
    expected = _expected(model, examples, outputs)
    return {
        layer: _share(expected[layer], output.values)
        for layer, output in outputs.items()
        if layer in expected
    }


def _outputs(artifact: Artifact, model: Any, examples: Any) -> dict[str, _Output]:
    # XNNPACK, the default delegate, keeps no tensor between its operators.
    run = Runner(
        artifact,
        threads=1,
        experimental_preserve_all_tensors=True,
        experimental_op_resolver_type=litert.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    given = by_name(model, examples)
    run(given)
    end = model.output_names[0]
    found = {
        layer: _Output(values=run.tensor(run.inputs[name]), details=run.inputs[name])
        for layer, name in zip(model.input_names, given, strict=True)
    }
    depth = {layer.name: index for index, layer in enumerate(model.layers)}
    # Depthwise kernels have a scale for each input.
    weights_of = {
        name.split("/")[0]: weight.numpy()
        for name, weight in kernel_variables(model).items()
        if not name.endswith("depthwise_kernel")
    }
    tensors = {details["name"]: details for details in run.interpreter.get_tensor_details()}
    for operator in flatbuffer.read(artifact.content).operators:
        layers, details = operator.layers(depth), tensors.get(operator.outputs[0].name)
        if layers and details:
            last = max(layers, key=depth.__getitem__)
            kernel = operator.kernel
            weights = weights_of.get(
                flatbuffer.layer_name(kernel.name.split(";")[-1] if kernel else "")
            )
            found[last] = _Output(
                values=run.tensor(details), details=details, kernel=kernel, weights=weights
            )
    # The interpreter has the model's output under a name of its own.
    last = found.get(end, _Output(values=run.tensor(run.output), details=run.output))
    found[end] = replace(last, values=run.tensor(run.output), details=run.output)
    return found


def _expected(model: "keras.Model", examples: Any, outputs: dict) -> dict[str, np.ndarray]:
    """Return what Keras computes for the layers in `outputs`, but for those called twice."""
    inputs = _inputs(model, examples)
    seen: dict[str, list] = {name: [x] for name, x in inputs.items()}

    def note(layer: Any, *args: Any, **kwargs: Any) -> Any:
        values = layer(*args, **kwargs)
        if layer.name in outputs:
            seen.setdefault(layer.name, []).append(values)
        return values

    computed(model, list(inputs.values()), note)
    return {
        layer: np.asarray(calls[0])
        for layer, calls in seen.items()
        if len(calls) == 1 and np.size(calls[0]) == outputs[layer].values.size
    }


def _inputs(model: Any, examples: Any) -> dict[str, Any]:
    """Return by the name of each input layer the tensor that it gets."""
    given = by_name(model, examples).values()
    return {
        name: tf.constant(values, like.dtype)
        for name, values, like in zip(model.input_names, given, model.inputs, strict=True)
    }


def _share(signal: np.ndarray, values: np.ndarray) -> float:
    difference = values.ravel() - signal.ravel()
    return float(np.linalg.norm(difference) / max(np.linalg.norm(signal), 1e-6))


def _decibels(signal: np.ndarray, values: np.ndarray) -> float:
    least = 10 ** (-MOST_DB / 20)
    return float(-20 * np.log10(np.clip(_share(signal, values), least, 1 / least)))


def _keeping(layer: str, kernel: flatbuffer.Tensor | None, trained: bool) -> str:
    """Return how to keep `layer` float, and what that costs."""
    how = f"layers=(Float(layers=({layer!r},)),)" if trained else f"exclude=({layer!r},)"
    if kernel is None or kernel.dtype == "float32":
        return f"keep it float with {how}"
    more = math.prod(kernel.shape) * (32 - (4 if kernel.dtype == "int4" else 8)) // 8
    return f"keep it float with {how} ({more:,} bytes more)"


def _advice(remedies: _Remedies, keep: str, signal: np.ndarray, output: _Output) -> str:
    """Return what helps against the greatest of cutting off, rounding and the kernel, or `keep`."""
    noise = np.mean((output.values - signal.reshape(output.values.shape)) ** 2)
    step, (low, high) = output.step, output.limits
    if np.mean((signal - np.clip(signal, low, high)) ** 2) > noise / 2:
        return f"its range cuts values off: {remedies.data}, or {keep}"
    if step**2 / 12 > noise / 4:
        if _is_unequal(_channel_peaks(signal)):
            return f"{_EQUALIZE}: {remedies.equalize}, or {keep}"
        if max(-low, high) > _FAR_OUT * np.percentile(np.abs(signal), 99.9):
            return f"outliers take the whole range: {remedies.clip}, or {keep}"
        return f"8 bit are too coarse for its outputs: {remedies.finer}, or {keep}"
    kernel = output.kernel
    if kernel is not None and kernel.dtype == "int4":
        return f"4 bit are too coarse for its kernel: {remedies.eight}, or {keep}"
    if output.weights is not None and _is_wide(output.weights):
        return f"some inputs take the whole range of its kernel: {remedies.equalize}, or {keep}"
    return f"its inputs or its kernel are too coarse: {remedies.finer}, or {keep}"


def _channel_peaks(values: np.ndarray) -> np.ndarray:
    return np.abs(values).reshape(-1, values.shape[-1]).max(0)


def _is_unequal(peaks: np.ndarray) -> bool:
    return peaks.max() > _UNEQUAL * np.median(peaks)


def _is_wide(weights: np.ndarray) -> bool:
    """Return whether the rows of `weights`, (..., inputs, outputs), have very unequal peaks."""
    peaks = np.abs(np.moveaxis(weights, -2, 0)).reshape(weights.shape[-2], -1).max(1)
    return peaks.max() > _WIDE * np.min(peaks, where=peaks > 0, initial=peaks.max())

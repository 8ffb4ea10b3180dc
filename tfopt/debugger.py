"""Where an artifact and its Keras model part, layer by layer, and what to do about it."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tfopt.advice import Output, advise, is_unequal, to_equalize
from tfopt.compat import keras, litert, tf
from tfopt.export import Artifact
from tfopt.export.inputs import by_name
from tfopt.facts import activation_bits, kernel_variables
from tfopt.graph import computed, consumers, operator
from tfopt.runner import Runner
from tfopt.tflite import flatbuffer, flatgraph

# In dB: noise of a tenth of the signal. A layer that is well in 8 bit has 30 to 45.
_ENOUGH, MOST_DB = 20.0, 120.0


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


def debug(
    artifact: Artifact, model: "keras.Model", examples: Any, *, keeps: bool = True
) -> tuple[Noise, ...]:
    """Return the noise of each layer that can be told in the artifact, worst first.

    `keeps` says whether the variant can keep layers float. One of several fused layers counts as
    the last, and layers that are called twice are left out. Both run once over `examples` as
    floats, and the Keras layers once more each on what the artifact gave the layer before.
    """
    outputs = _outputs(artifact, model, examples)
    expected = _expected(model, examples, outputs)
    bits = activation_bits(model)
    trained, keeps = bits > 0, bits == 8 if bits else keeps
    after = consumers(model)
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
        source = model.get_layer(output.owner) if output.owner in after else layer
        named = _before_quantization(source, after) if keeps else ""
        advice[layer.name] = advise(named, clean, output, trained=trained)
        if output.step and is_unequal(clean):
            unequal.append(layer.name)
        return tf.constant(output.values.reshape(clean.shape), signal.dtype)

    inputs = _inputs(model, examples).items()
    computed(model, [substitute(model.get_layer(name), x) for name, x in inputs], substitute)
    found.sort(key=lambda noise: noise.own_db)
    noisy = [noise.layer for noise in found if noise.own_db < _ENOUGH]
    if not noisy and min(noise.sqnr_db for noise in found) < _ENOUGH:
        # Channels that are lost beside a great one are no noise to speak of, until a later
        # layer multiplies them; without any, it is the sum that is too much.
        advice |= dict.fromkeys(unequal, to_equalize(trained=trained))
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


def _before_quantization(layer: Any, after: dict[str, list]) -> str:
    """Return the layer that a config names for `layer`, "" where it has none.

    Those that a quantization-aware model has in place of one, as attention's parts, have ranges
    that know it; `after` are the layers that take each one's output.
    """
    if isinstance(layer, keras.layers.InputLayer):
        return ""
    taking = layer
    while not hasattr(taking, "of"):
        following = after[taking.name]
        if len(following) != 1 or not _passes_on(following[0]):
            # Of an operator that nothing rounds after, nobody knows which layer it is a part of.
            return "" if type(layer).__name__.endswith("OpLambda") else layer.name
        (taking,) = following
    return taking.of


def _passes_on(layer: Any) -> bool:
    return hasattr(layer, "of") or operator(layer) in ("reshape", "transpose")


def _outputs(artifact: Artifact, model: Any, examples: Any) -> dict[str, Output]:
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
        layer: Output(values=run.tensor(run.inputs[name]), details=run.inputs[name])
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
    for made in flatbuffer.read(artifact.content).operators:
        layers, details = made.layers(depth), tensors.get(made.outputs[0].name)
        if layers and details:
            last = max(layers, key=depth.__getitem__)
            kernel = made.kernel
            owner = flatgraph.kernel_layer(kernel.name, made.outputs[0].name) if kernel else ""
            found[last] = Output(
                values=run.tensor(details),
                details=details,
                owner=owner,
                kernel=kernel,
                weights=weights_of.get(owner),
            )
    # The interpreter has the model's output under a name of its own.
    last = found.get(end, Output(values=run.tensor(run.output), details=run.output))
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
    known = np.isfinite(signal).ravel()  # not so is the logarithm of what was rounded to 0
    signal, values = signal.ravel()[known], values.ravel()[known]
    difference = values - signal
    return float(np.linalg.norm(difference) / max(np.linalg.norm(signal), 1e-6))


def _decibels(signal: np.ndarray, values: np.ndarray) -> float:
    least = 10 ** (-MOST_DB / 20)
    return float(-20 * np.log10(np.clip(_share(signal, values), least, 1 / least)))

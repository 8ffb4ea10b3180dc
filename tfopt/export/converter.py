"""TensorFlow's converter, set up for a Keras model, and the ranges that it is given."""

import warnings
from collections.abc import Iterator
from typing import Any

import flatbuffers

from tfopt import preemption
from tfopt.compat import keras, tf, tflite_convert, tflite_schema
from tfopt.errors import ConfigError
from tfopt.export.inputs import Examples, input_names
from tfopt.graph import calls, exchanged


def converter(model: Any) -> Any:
    """Return a converter of `model` into a file that takes any batch, by default 1."""
    # Deferred, since they load TensorFlow.
    from tfopt import convolutions, moments
    from tfopt.recurrent import loop, unrolled
    from tfopt.rounding import converting

    def runnable(layer: Any) -> Any:
        if loop(layer):
            return unrolled(layer)
        return moments.rewritten(layer) or convolutions.rewritten(layer)

    model = exchanged(model, runnable)
    with converting(model):
        function, owner = traced(model)
    return tf.lite.TFLiteConverter.from_concrete_functions([function], owner)


def traced(model: Any) -> tuple[Any, Any]:
    """Return the function of `model`, inputs and logits by name, and what owns its variables."""
    signature = [
        tf.TensorSpec(tensor.shape, tensor.dtype, name=name)
        for tensor, name in zip(model.inputs, input_names(model), strict=True)
    ]
    nested = model._nested_inputs

    def call(*tensors: Any) -> dict:
        return {"logits": model(tf.nest.pack_sequence_as(nested, tensors), training=False)}

    function = tf.function(call, input_signature=signature).get_concrete_function()
    # What is saved is what owns the variables: with the Keras model itself that takes several
    # times as long, as Keras traces each of its layers anew.
    owner = tf.Module()
    owner.captured = function.graph.variables
    return function, owner


def check_loops(variant: str, model: "keras.Model") -> None:
    """Raise ConfigError for a recurrent layer of `model` whose loop can't be written out."""
    # Deferred, since it loads TensorFlow.
    from tfopt.recurrent import loop, steps

    layers: Any = keras.layers
    for layer, _ in calls(model):
        if not loop(layer):
            continue
        if steps(layer) is None:
            raise ConfigError(
                f"variant {variant!r}: expected recurrent layers with a known number of time "
                f"steps, received {layer.name!r} with None; give the model's input that number."
            )
        if isinstance(loop(layer), (layers.ConvLSTM1D, layers.ConvLSTM2D, layers.ConvLSTM3D)):
            raise ConfigError(
                f"variant {variant!r}: expected layers that TFLite can compute, received "
                f"{layer.name!r}, a {type(layer).__name__}; convolve in a TimeDistributed layer "
                "before an LSTM instead."
            )


def check_masks(variant: str, model: "keras.Model") -> None:
    """Raise ConfigError for a recurrent layer of `model` that skips steps, which int8 can't."""
    # Deferred, since it loads TensorFlow.
    from tfopt.recurrent import loop

    for layer, _ in calls(model):
        given = tf.nest.flatten(layer.get_input_at(0)) if loop(layer) else []
        if any(getattr(tensor, "_keras_mask", None) is not None for tensor in given):
            raise ConfigError(
                f"variant {variant!r}: expected recurrent layers that see every time step, "
                f"received {layer.name!r} behind a mask, which LiteRT can't run in int8; leave "
                "Masking or mask_zero out, or set config.variants to Float32() and others."
            )


def calibrate(made: Any, model: Any, examples: Examples) -> None:
    """Let the converter `made` of `model` quantize, with ranges from `examples`."""
    types = [tensor.dtype.as_numpy_dtype for tensor in model.inputs]

    def one_by_one() -> Iterator[dict]:
        for each in zip(*examples.values(), strict=True):
            # By name: the file has an order of its own.
            yield {
                name: value[None].astype(dtype)
                for name, value, dtype in zip(examples, each, types, strict=True)
            }

    made.optimizations = [tf.lite.Optimize.DEFAULT]
    made.representative_dataset = one_by_one


def converted(made: Any) -> bytes:
    """Return the bytes of the .tflite that the converter `made` makes."""
    with warnings.catch_warnings():
        # int8 inputs take their scale from the model or the calibration; the converter
        # warns that TensorFlow 1's way of stating it wasn't used.
        warnings.filterwarnings("ignore", message="Statistics for quantized inputs")
        # Which it is itself that uses it, to find the inputs by name.
        warnings.filterwarnings("ignore", message=r"\s*Warning: tf.lite.Interpreter is deprecated")
        try:
            # A signal that is raised within would be taken for an error of the model.
            with preemption.awaited():
                return bytes(made.convert())
        except tflite_convert.ConverterError as error:
            said = next((line for line in str(error).splitlines() if line.strip()), "nothing")
            raise ConfigError(
                f"config.model: expected layers that TFLite can compute, received some of which "
                f"its converter says {said.strip()!r}; replace them by layers made of others."
            ) from error


def with_ranges(content: bytes, found: dict[str, tuple[float, float]]) -> bytes:
    """Return the calibrated `content` with other ranges, by the names of the tensors."""
    model = tflite_schema.ModelT.InitFromPackedBuf(content, 0)
    for tensor in (tensor for subgraph in model.subgraphs for tensor in subgraph.tensors):
        if tensor.name.decode() in found and tensor.quantization is not None:
            low, high = found[tensor.name.decode()]
            tensor.quantization.min, tensor.quantization.max = [low], [high]
    builder = flatbuffers.Builder(len(content))
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())

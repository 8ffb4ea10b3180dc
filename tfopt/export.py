"""Keras model -> TFLite: a variant is a spec that says how, an artifact is the bytes."""

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tfopt.checkpoint import write_atomically
from tfopt.compat import keras, tf
from tfopt.config import ConfigError, bounded, spec
from tfopt.facts import is_quantized


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """The bytes of one .tflite file, and of which stage and variant they are."""

    stage: str
    variant: str
    content: bytes

    @property
    def name(self) -> str:
        """`stage_variant`, also the file's name without the suffix."""
        return f"{self.stage}_{self.variant}"

    def write(self, folder: Path) -> Path:
        """Write the bytes to `folder`, whole or not at all, and return the file's path."""
        path = folder / f"{self.name}.tflite"
        write_atomically(path, self.content)
        return path


@spec
class Variant:
    """What the TFLite forms share; by itself it leaves the converter as it is."""

    name: ClassVar[str] = ""
    takes_quantized: ClassVar[bool] = False

    def configure(self, converter: Any, examples: np.ndarray) -> None:
        """Set the options of `converter`; `examples` are normalised training examples."""

    def convert(self, model: "keras.Model", examples: np.ndarray) -> bytes:
        """Return `model` as the bytes of a .tflite that takes any batch, by default 1.

        `examples` (n, *shape), float32, are what ranges are calibrated with. Raises
        ConfigError where a quantization-aware model can't become this variant.
        """
        if is_quantized(model) and not self.takes_quantized:
            raise ConfigError(
                f"variant {self.name!r}: expected a model without quantization-aware layers, "
                f"received {model.name!r}, which has some; use Int8()."
            )
        converter = _converter(model)
        self.configure(converter, examples)
        with warnings.catch_warnings():
            # int8 inputs take their scale from the model or the calibration; the converter
            # warns that TensorFlow 1's way of stating it wasn't used.
            warnings.filterwarnings("ignore", message="Statistics for quantized inputs")
            return bytes(converter.convert())


@spec
class Float32(Variant):
    """Weights and arithmetic in float32."""

    name: ClassVar[str] = "float32"


@spec
class Float16(Variant):
    """Weights stored in float16; arithmetic in float32 where the device has no float16."""

    name: ClassVar[str] = "float16"

    def configure(self, converter: Any, examples: np.ndarray) -> None:
        """Store weights as float16."""
        del examples
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.target_spec.supported_types = [tf.float16]


@spec
class DynamicRange(Variant):
    """Weights stored in int8, activations quantized on the fly; float32 in and out."""

    name: ClassVar[str] = "dynamic"

    def configure(self, converter: Any, examples: np.ndarray) -> None:
        """Store weights as int8."""
        del examples
        converter.optimizations = [tf.lite.Optimize.DEFAULT]


@spec
class Int8(Variant):
    """Weights, activations, input and output in int8.

    `examples` training examples calibrate the ranges of a float model; a quantization-aware
    model brings its own, and the converter leaves those as they are. What has no int8 kernel
    stays float, which the report lists, instead of failing the conversion.
    """

    name: ClassVar[str] = "int8"
    takes_quantized: ClassVar[bool] = True

    examples: int = bounded(200, least=1)

    def configure(self, converter: Any, examples: np.ndarray) -> None:
        """Quantize all, with ranges from the first `self.examples` of `examples`."""
        chosen = np.asarray(examples[: self.examples], np.float32)
        if not len(chosen):
            raise ConfigError("variant 'int8': expected at least one training example, received 0.")
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = converter.inference_output_type = tf.int8
        converter.representative_dataset = lambda: ([example[None]] for example in chosen)


def sensible(quantized: bool) -> list:
    """Return the variants to export where none are asked for."""
    return [Int8()] if quantized else [Float32(), Float16(), DynamicRange(), Int8()]


def _converter(model: "keras.Model") -> Any:
    signature = [tf.TensorSpec(model.input_shape, model.inputs[0].dtype, name="examples")]
    traced = tf.function(
        lambda examples: {"logits": model(examples, training=False)}, input_signature=signature
    )
    function = traced.get_concrete_function()
    # The converter saves and loads what owns the variables: with the Keras model itself that
    # takes several times as long, as Keras traces each of its layers anew.
    owner = tf.Module()
    owner.captured = function.graph.variables
    return tf.lite.TFLiteConverter.from_concrete_functions([function], owner)

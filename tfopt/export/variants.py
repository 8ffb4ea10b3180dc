"""The forms of a TFLite file that TensorFlow's own converter makes."""

import fnmatch
from typing import Any, ClassVar

from tfopt import flatbuffer
from tfopt.compat import keras, tf, tflite_convert
from tfopt.errors import ConfigError, check_patterns
from tfopt.export.calibration import MinMax, ranges
from tfopt.export.converter import (
    calibrate,
    check_loops,
    check_masks,
    converted,
    converter,
    with_ranges,
)
from tfopt.export.inputs import Examples, by_name, first
from tfopt.facts import activation_bits, is_quantized
from tfopt.graph import index_inputs
from tfopt.packing import packed
from tfopt.spec import bounded, having, spec


@spec
class Variant:
    """What the TFLite forms share; by itself it leaves the converter as it is."""

    name: ClassVar[str] = ""
    takes_quantized: ClassVar[bool] = False

    def check(self, model: "keras.Model") -> None:
        """Raise ConfigError where `model`, trained or not, can't become this variant."""
        if is_quantized(model) and not self.takes_quantized:
            raise ConfigError(
                f"variant {self.name!r}: expected a model without quantization-aware layers, "
                f"received {model.name!r}, which has some; use Int8()."
            )
        check_loops(self.name, model)

    def configure(self, made: Any, model: "keras.Model", examples: Examples) -> None:
        """Set the options of the converter `made`; `examples` are an array by input."""

    def complete(self, content: bytes, model: "keras.Model", examples: Examples) -> bytes:
        """Return what becomes of the `content` that the converter made of `model`."""
        del model, examples
        return content

    def convert(self, model: "keras.Model", examples: Any) -> bytes:
        """Return `model` as the bytes of a .tflite that takes any batch, by default 1.

        `examples` (n, *shape), normalised ones of the training data, are what ranges are
        calibrated with; where the model has several inputs, a dict of such arrays by input, or
        a tuple in their order. Raises ConfigError where `model` can't become this variant.
        """
        self.check(model)
        taken = by_name(model, examples)
        made = converter(model)
        self.configure(made, model, taken)
        return self.complete(converted(made), model, taken)


@spec
class Float32(Variant):
    """Weights and arithmetic in float32."""

    name: ClassVar[str] = "float32"


@spec
class Float16(Variant):
    """Weights stored in float16; arithmetic in float32 where the device has no float16."""

    name: ClassVar[str] = "float16"

    def configure(self, made: Any, model: "keras.Model", examples: Examples) -> None:
        """Store weights as float16."""
        del model, examples
        made.optimizations = [tf.lite.Optimize.DEFAULT]
        made.target_spec.supported_types = [tf.float16]


@spec
class DynamicRange(Variant):
    """Weights stored in int8, activations quantized on the fly; float32 in and out."""

    name: ClassVar[str] = "dynamic"

    def configure(self, made: Any, model: "keras.Model", examples: Examples) -> None:
        """Store weights as int8."""
        del model, examples
        made.optimizations = [tf.lite.Optimize.DEFAULT]


@spec
class Int8(Variant):
    """Weights, activations, input and output in int8; rows of an Embedding come in as floats.

    `examples` training examples calibrate the ranges of a float model, as `calibration` says;
    a quantization-aware model brings its own, and the converter leaves those as they are. What
    has no int8 kernel stays float, which the report lists, instead of failing the conversion,
    and so do the layers whose name matches one of the patterns in `exclude`.
    """

    takes_quantized: ClassVar[bool] = True

    examples: int = bounded(200, least=1)
    calibration: Any = having("clip", MinMax)
    exclude: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`int8`, and what is special about it."""
        return named("int8", self.calibration, self.exclude)

    def check(self, model: "keras.Model") -> None:
        """Raise ConfigError where `exclude` can't be kept float, or 16 bits were trained."""
        Variant.check(self, model)
        if activation_bits(model) == 16:
            raise ConfigError(
                f"variant {self.name!r}: expected activations of 8 bits, received {model.name!r}, "
                "which was trained for 16; use Int16x8()."
            )
        check_masks(self.name, model)
        check_exclude(self.name, self.exclude, model)
        if self.exclude and is_quantized(model):
            raise ConfigError(
                f"variant {self.name!r}, exclude: expected a model without quantization-aware "
                f"layers, received {model.name!r}; exclude the layer in that stage."
            )

    def configure(self, made: Any, model: "keras.Model", examples: Examples) -> None:
        """Quantize all, with ranges from the first `self.examples` of `examples`."""
        calibrate(made, model, chosen(self.name, examples, self.examples))
        made.inference_input_type = _input_type(model, tf.int8)
        made.inference_output_type = tf.int8
        if is_quantized(model):
            # Its own ranges are all there are: with examples the converter would calibrate, and
            # quantize, what was left float.
            made.representative_dataset = None
        # Calibrated only: the file stays float, with the extremes of each tensor beside it.
        made._experimental_calibrate_only = self._by_hand(model)

    def complete(self, content: bytes, model: "keras.Model", examples: Examples) -> bytes:
        """Return `content` quantized, where the converter was to leave that."""
        if is_quantized(model):
            # Deferred, since it loads TensorFlow.
            from tfopt.rounding import four_bits

            return packed(content, four_bits(model))
        if not self._by_hand(model):
            return content
        found = ranges(content, chosen(self.name, examples, self.examples), self.calibration)
        int8: Any = tf.int8
        quantized: Any = tflite_convert.mlir_quantize(
            with_ranges(content, found),
            input_data_type=_input_type(model, int8),
            output_data_type=int8,
            denylisted_nodes=excluded(content, self.exclude, model),
        )
        return bytes(quantized)

    def _by_hand(self, model: "keras.Model") -> bool:
        return not is_quantized(model) and bool(self.exclude or self.calibration != MinMax())


@spec
class Int16x8(Variant):
    """Weights in int8; activations, input and output in int16, for what int8 is too coarse.

    `examples` calibrate the ranges, those of a quantization-aware model as well: in 16 bits they
    are no part of what it learned. On a CPU LiteRT has reference kernels for it only, some
    hundred times as slow as int8: it is for accelerators, and for telling what int8 costs.
    """

    name: ClassVar[str] = "int16x8"
    takes_quantized: ClassVar[bool] = True

    examples: int = bounded(200, least=1)

    def check(self, model: "keras.Model") -> None:
        """Raise ConfigError for what was trained to stay float, or in 4 bits: it can't be kept."""
        # Deferred, since it loads TensorFlow.
        from tfopt.rounding import BY_CONFIG, four_bits, left_float

        Variant.check(self, model)
        kept = [name for name, reason in left_float(model).items() if reason == BY_CONFIG]
        if unkept := [*kept, *sorted(four_bits(model))]:
            raise ConfigError(
                f"variant {self.name!r}: expected a model whose kernels all have 8 bits, received "
                f"{model.name!r}, in which layer {unkept[0]!r} was trained for others; use Int8()."
            )

    def configure(self, made: Any, model: "keras.Model", examples: Examples) -> None:
        """Quantize what has a kernel of this kind, with ranges from `examples`."""
        calibrate(made, model, chosen(self.name, examples, self.examples))
        made.inference_input_type = _input_type(model, tf.int16)
        made.inference_output_type = tf.int16
        sets = tf.lite.OpsSet
        made.target_spec.supported_ops = [
            sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
            sets.TFLITE_BUILTINS,
        ]

    def convert(self, model: "keras.Model", examples: Any) -> bytes:
        """Return `model` as the bytes of a .tflite, of a quantization-aware one its kernels."""
        # Deferred, since it loads TensorFlow.
        from tfopt.rounding import unranged

        return Variant.convert(self, unranged(model) if is_quantized(model) else model, examples)


def _input_type(model: "keras.Model", integer: Any) -> Any:
    """Return the type of the file's inputs: `integer`, or float where they are a table's rows."""
    return tf.float32 if index_inputs(model) else integer


def sensible(bits: int = 0) -> list:
    """Return the variants to export where none are asked for, by a model's `activation_bits`."""
    if not bits:
        return [Float32(), Float16(), DynamicRange(), Int8()]
    return [Int16x8() if bits == 16 else Int8()]


def named(kind: str, calibration: Any, exclude: tuple[str, ...]) -> str:
    """Return a variant's name: `kind`, and what differs from the defaults."""
    parts = [kind, *([calibration.name] if calibration != MinMax() else [])]
    return "_".join([*parts, *(["mixed"] if exclude else [])])


def chosen(variant: str, examples: Examples, count: int) -> Examples:
    """Return the first `count` of `examples`, or raise ConfigError where there are none."""
    if not all(map(len, examples.values())):
        raise ConfigError(
            f"variant {variant!r}: expected at least one training example, received 0."
        )
    return first(examples, count)


def check_exclude(variant: str, exclude: tuple[str, ...], model: "keras.Model") -> None:
    """Raise ConfigError for a pattern in `exclude` that is none of `model`'s layers."""
    names = [layer.name for layer in model.layers]
    check_patterns(f"variant {variant!r}, exclude", exclude, names)


def excluded(content: bytes, exclude: tuple[str, ...], model: "keras.Model") -> set[str]:
    """Return the names of the tensors that operators of the layers in `exclude` compute."""
    names = [layer.name for layer in model.layers]
    layers = {name for pattern in exclude for name in fnmatch.filter(names, pattern)}
    return {
        operator.outputs[0].name
        for operator in flatbuffer.read(content).operators
        if operator.layers(names) & layers
    }

"""The forms of a TFLite file that compute with integers, and which forms are made by default."""

from typing import Any, ClassVar

from tfopt.compat import keras, tf, tflite_convert
from tfopt.errors import ConfigError
from tfopt.export.calibration import MinMax, ranges
from tfopt.export.converter import calibrate, check_masks, with_ranges
from tfopt.export.inputs import Examples
from tfopt.export.variants import (
    DynamicRange,
    Float16,
    Float32,
    Variant,
    check_exclude,
    chosen,
    excluded,
    named,
)
from tfopt.facts import activation_bits, is_quantized
from tfopt.graph import index_inputs
from tfopt.spec import bounded, having, spec
from tfopt.tflite.packing import packed


@spec
class Int8(Variant):
    """Weights, activations, input and output in int8; rows of an Embedding come in as floats.

    With `float_io` input and output are float32, which the file rounds itself.

    `examples` training examples calibrate the ranges of a float model, as `calibration` says;
    a quantization-aware model brings its own, and the converter leaves those as they are. What
    has no int8 kernel stays float, which the report lists, instead of failing the conversion,
    and so do the layers whose name matches one of the patterns in `exclude`.
    """

    kind: ClassVar[str] = "int8"
    takes_quantized: ClassVar[bool] = True
    takes_sparse: ClassVar[bool] = True

    examples: int = bounded(200, least=1)
    calibration: Any = having("clip", MinMax)
    exclude: tuple[str, ...] = ()
    float_io: bool = False

    @property
    def name(self) -> str:
        """`int8`, and what is special about it."""
        return named(
            *(self.kind, self.calibration, self.exclude),
            float_io=self.float_io,
            sparse=self.sparse,
        )

    def check(self, model: "keras.Model") -> None:
        """Raise ConfigError where `exclude` can't be kept float, or 16 bits were trained."""
        Variant.check(self, model)
        if activation_bits(model) == 16:
            raise ConfigError(
                f"variant {self.name!r}: expected activations of 8 bits, received {model.name!r}, "
                "which was trained for 16; use Int16x8()."
            )
        check_masks(self.name, model)
        self._check_sparse(model)
        check_exclude(self.name, self.exclude, model)
        if self.exclude and is_quantized(model):
            raise ConfigError(
                f"variant {self.name!r}, exclude: expected a model without quantization-aware "
                f"layers, received {model.name!r}; exclude the layer in that stage."
            )

    def _check_sparse(self, model: "keras.Model") -> None:
        # Deferred, since it loads TensorFlow.
        from tfopt.rounding import four_bits

        # TFLite's encoder ends the process at the first of them.
        if self.sparse and (packed := sorted(four_bits(model))):
            raise ConfigError(
                f"variant {self.name!r}, sparse: expected a model whose kernels all have 8 bits, "
                f"received {model.name!r}, in which layer {packed[0]!r} was trained for 4; leave "
                "sparse out."
            )

    def configure(self, made: Any, model: "keras.Model", examples: Examples) -> None:
        """Quantize all, with ranges from the first `self.examples` of `examples`."""
        calibrate(made, model, chosen(self.name, examples, self.examples))
        made.inference_input_type, made.inference_output_type = self._ends(model)
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
        taken, given = self._ends(model)
        quantized: Any = tflite_convert.mlir_quantize(
            with_ranges(content, found),
            input_data_type=taken,
            output_data_type=given,
            denylisted_nodes=excluded(content, self.exclude, model),
        )
        return bytes(quantized)

    def _ends(self, model: "keras.Model") -> tuple[Any, Any]:
        return _end_types(model, tf.int8, self.float_io)

    def _by_hand(self, model: "keras.Model") -> bool:
        return not is_quantized(model) and bool(self.exclude or self.calibration != MinMax())


@spec
class Int16x8(Variant):
    """Weights in int8; activations, input and output in int16, for what int8 is too coarse.

    With `float_io` input and output are float32.

    `examples` calibrate the ranges, those of a quantization-aware model as well: in 16 bits they
    are no part of what it learned. On a CPU LiteRT has reference kernels for it only, some
    hundred times as slow as int8: it is for accelerators, and for telling what int8 costs.
    """

    kind: ClassVar[str] = "int16x8"
    takes_quantized: ClassVar[bool] = True
    runs_what_float_does: ClassVar[bool] = False

    examples: int = bounded(200, least=1)
    float_io: bool = False

    @property
    def name(self) -> str:
        """`int16x8`, and what is special about it."""
        return named(self.kind, float_io=self.float_io)

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
        ends = _end_types(model, tf.int16, self.float_io)
        made.inference_input_type, made.inference_output_type = ends
        sets = tf.lite.OpsSet
        made.target_spec.supported_ops = [
            sets.EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8,
            sets.TFLITE_BUILTINS,
        ]

    def convert(self, model: "keras.Model", examples: Any) -> bytes:
        """Return `model` as the bytes of a .tflite, of a quantization-aware one its kernels."""
        # Deferred, since it loads TensorFlow.
        from tfopt.rounding import unranged

        try:
            return Variant.convert(
                self, unranged(model) if is_quantized(model) else model, examples
            )
        except RuntimeError as error:
            if "Unsupported" not in str(error):
                raise
            raise ConfigError(
                f"variant {self.name!r}: expected a first and a last layer that TFLite computes in "
                f"16 bits, received a model of which its converter says {str(error)!r}; set "
                "float_io=True."
            ) from error


def _end_types(model: "keras.Model", integer: Any, float_io: bool) -> tuple[Any, Any]:
    """Return the types of the file's inputs and outputs: `integer`, unless with `float_io`.

    Inputs are float where they are a table's rows, too.
    """
    output = tf.float32 if float_io else integer
    return tf.float32 if index_inputs(model) else output, output


def sensible(bits: int = 0) -> list:
    """Return the variants to export where none are asked for, by a model's `activation_bits`."""
    if not bits:
        return [Float32(), Float16(), DynamicRange(), Int8()]
    return [Int16x8() if bits == 16 else Int8()]

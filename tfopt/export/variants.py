"""What the forms of a TFLite file share, and the forms that compute in float."""

from collections.abc import Iterator
from typing import Any, ClassVar

from tfopt.compat import keras, tf
from tfopt.errors import ConfigError, check_patterns, matches
from tfopt.export.calibration import MinMax
from tfopt.export.converter import check_loops, converted, converter
from tfopt.export.inputs import Examples, by_name, first
from tfopt.export.sparse import sparsified
from tfopt.facts import is_quantized
from tfopt.spec import spec
from tfopt.tflite import flatbuffer


@spec
class Variant:
    """What the TFLite forms share; by itself it leaves the converter as it is.

    `sparse` stores kernels of many zeros as the places and values of the others, where LiteRT
    runs that: a smaller file, which is expanded when it is loaded, and no faster one. Compressed,
    it is hardly smaller than the dense file, and microcontrollers don't read it.

    Of a kind that doesn't run all `runs_what_float_does` a file is tried before anything is
    trained.
    """

    kind: ClassVar[str] = ""
    takes_quantized: ClassVar[bool] = False
    takes_sparse: ClassVar[bool] = False
    runs_what_float_does: ClassVar[bool] = True

    sparse: bool = False

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield what is impossible."""
        if self.sparse and not self.takes_sparse:
            yield "sparse", "False, as LiteRT runs sparse files of Float32(), Float16() and Int8()"

    @property
    def name(self) -> str:
        """The kind, and what differs from the defaults."""
        return named(self.kind, sparse=self.sparse)

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
        content = self.complete(converted(made), model, taken)
        return sparsified(content, self.name) if self.sparse else content


@spec
class Float32(Variant):
    """Weights and arithmetic in float32."""

    kind: ClassVar[str] = "float32"
    takes_sparse: ClassVar[bool] = True


@spec
class Float16(Variant):
    """Weights stored in float16; arithmetic in float32 where the device has no float16."""

    kind: ClassVar[str] = "float16"
    takes_sparse: ClassVar[bool] = True

    def configure(self, made: Any, model: "keras.Model", examples: Examples) -> None:
        """Store weights as float16."""
        del model, examples
        made.optimizations = [tf.lite.Optimize.DEFAULT]
        made.target_spec.supported_types = [tf.float16]


@spec
class DynamicRange(Variant):
    """Weights stored in int8, activations quantized on the fly; float32 in and out."""

    kind: ClassVar[str] = "dynamic"

    def configure(self, made: Any, model: "keras.Model", examples: Examples) -> None:
        """Store weights as int8."""
        del model, examples
        made.optimizations = [tf.lite.Optimize.DEFAULT]


def named(
    kind: str,
    calibration: Any = None,
    exclude: tuple[str, ...] = (),
    *,
    float_io: bool = False,
    sparse: bool = False,
) -> str:
    """Return a variant's name: `kind`, and what differs from the defaults."""
    special = {
        getattr(calibration, "name", ""): calibration not in (None, MinMax()),
        "mixed": bool(exclude),
        "float_io": float_io,
        "sparse": sparse,
    }
    return "_".join([kind, *(word for word, so in special.items() if so)])


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
    layers = {name for name in names if matches(name, exclude)}
    return {
        operator.outputs[0].name
        for operator in flatbuffer.read(content).operators
        if operator.layers(names) & layers
    }

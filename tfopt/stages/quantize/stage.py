"""The stage that trains with the rounding of whole-number arithmetic simulated."""

import logging
from typing import Any, ClassVar

from tfopt.compat import keras
from tfopt.errors import check_patterns, matches
from tfopt.facts import measure
from tfopt.graph import rebuilt
from tfopt.spec import bounded, spec
from tfopt.stages.base import Stage

_LOG = logging.getLogger(__name__)
# A range forgets what it was over this share of the stage, but over no fewer steps.
_FORGETS, _LEAST_STEPS = 0.1, 10


@spec
class Bits:
    """Kernels of other `weights` bits, 4 or 8, in the layers that match a name or pattern."""

    layers: tuple[str, ...]
    weights: int = bounded(8, least=4, most=8)

    def rules(self) -> Any:
        """Yield what is impossible."""
        yield from _any_layers(self.layers)
        yield from _two_widths("weights", self.weights, 4, 8)

    def bits(self) -> int:
        """Return the number of bits of a kernel."""
        return self.weights


@spec
class Float:
    """The layers that match a name or pattern stay float, in the artifact as well."""

    layers: tuple[str, ...]

    def rules(self) -> Any:
        """Yield what is impossible."""
        yield from _any_layers(self.layers)

    def bits(self) -> int:
        """Return 0: there is no rounding."""
        return 0


@spec
class Quantize(Stage):
    """Train with the rounding of kernels and activations simulated (Jacob et al. 2017).

    Kernels have `weights` bits, 4 or 8 (tables of an Embedding 8), symmetric with a scale for each
    output channel;
    activations 8, or 16 with 8-bit kernels. `layers` are exceptions, `Bits(...)` or
    `Float(...)`, of which the first that names a layer counts. Ranges start from
    `calibration_batches` of the training data and move with the batches afterwards.

    A layer without an int8 kernel in TFLite stays float, and one that isn't known does: each
    is logged, and `rounding.left_float` of the finished model tells the reasons. The finished
    model has its BatchNormalizations folded and its kernels rounded.
    """

    quantizes: ClassVar[bool] = True
    scales_channels: ClassVar[bool] = True

    name: str = "quantize"
    weights: int = bounded(8, least=4, most=8)
    activations: int = bounded(8, least=8, most=16)
    layers: tuple[Bits | Float, ...] = ()
    calibration_batches: int = bounded(4, least=1)

    def rules(self) -> Any:
        """Yield what is impossible."""
        yield from Stage.rules(self)
        yield from _two_widths("weights", self.weights, 4, 8)
        yield from _two_widths("activations", self.activations, 8, 16)
        others = {self.weights, *(each.bits() for each in self.layers)} - {8}
        if self.activations == 16 and others:
            yield "activations", "8 with kernels of 4 bits or float ones, as TFLite has none for 16"

    def prepare(self, model: "keras.Model", steps: int, samples: Any) -> "keras.Model":
        """Return a copy of `model` that rounds, its ranges calibrated on `samples`."""
        # Deferred, since these are subclasses of Keras's: configs must not load TensorFlow.
        from tfopt.rounding import left_float
        from tfopt.stages.quantize.observe import observe
        from tfopt.stages.quantize.rewrite import rewritten

        self._check_names(model)
        rate = 1 / max(_FORGETS * steps, _LEAST_STEPS)
        made = rewritten(model, self._bits, activations=self.activations, rate=rate)
        batches = samples.take(self.calibration_batches)
        observe(made, (examples for examples, *_ in batches), training=steps > 0)
        tables = [layer.name for layer in made.layers if type(layer).__name__ == "Embedding"]
        if tables and self.weights == 4:
            _LOG.warning(
                "stage %s: 8 bits and not 4, as TFLite looks up no others: %s.",
                self.name,
                ", ".join(tables),
            )
        for layer, reason in left_float(made).items():
            _LOG.warning("stage %s: layer %s stays float: %s.", self.name, layer, reason)
        return made

    def finish(self, model: "keras.Model") -> "keras.Model":
        """Return the model with kernels on their grids and BatchNormalization folded."""
        from tfopt.stages.quantize.finish import finished

        return finished(model)

    def _bits(self, layer: "keras.layers.Layer") -> int:
        """Return the bits of the kernel of `layer`, 0 where it stays float."""
        named = (each for each in self.layers if matches(layer.name, each.layers))
        exception = next(named, None)
        return exception.bits() if exception else self.weights

    def _check_names(self, model: "keras.Model") -> None:
        flat = rebuilt(model)
        inputs: Any = flat.input_names
        of: dict[type, list[str]] = {
            Float: [layer.name for layer in flat.layers if layer.name not in inputs],
            Bits: list(dict.fromkeys(kernel.layer for kernel in measure(flat).kernels)),
        }
        for number, each in enumerate(self.layers):
            at = f"stage {self.name!r}, layers[{number}]"
            check_patterns(at, each.layers, of[type(each)])


def _any_layers(layers: tuple[str, ...]) -> Any:
    if not layers:
        yield "layers", "at least one name or pattern of layers"


def _two_widths(field: str, value: int, one: int, other: int) -> Any:
    if value not in (one, other):
        yield field, f"{one} or {other} bits"

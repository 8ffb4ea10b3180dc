"""Quantization-aware training to 8 bit (Jacob et al. 2017) with tfmot."""

from pathlib import Path
from typing import Any, ClassVar

from tfopt.compat import keras, tfmot
from tfopt.config import ConfigError, spec
from tfopt.facts import measure
from tfopt.stages.base import Stage
from tfopt.stages.hold import is_sparse


@spec
class Quantize(Stage):
    """Train with the rounding of int8 kernels and activations simulated.

    Zeros that the model comes with are kept: the scheme is chosen from the measured weights.
    """

    quantizes: ClassVar[bool] = True

    name: str = "quantize"

    def prepare(self, model: "keras.Model", steps: int, samples: Any) -> "keras.Model":
        """Return a quantization-aware copy of `model`."""
        del steps, samples
        annotated = tfmot.quantization.keras.quantize_annotate_model(model)
        try:
            return tfmot.quantization.keras.quantize_apply(annotated, _scheme(model))
        except (ValueError, RuntimeError) as error:
            raise ConfigError(
                f"stage {self.name!r}: tfmot can't quantize this model ({_first(error)}); "
                "leave the stage out and export with Int8(), or replace the layer."
            ) from error

    def callbacks(self, log_dir: Path) -> list:
        """Return what keeps the ranges of all replicas alike."""
        del log_dir
        # Deferred, since it loads TensorFlow.
        from tfopt.stages.callbacks import MergeRanges

        return [MergeRanges()]


def _scheme(model: "keras.Model") -> Any:
    sparse = any(is_sparse(kernel.zeros, kernel.size) for kernel in measure(model).kernels)
    if sparse:
        return tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
    return tfmot.quantization.keras.default_8bit.Default8BitQuantizeScheme()


def _first(error: Exception) -> str:
    return str(error).strip().split("\n")[0].split(". ")[0]

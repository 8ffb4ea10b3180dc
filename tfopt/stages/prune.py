"""Magnitude pruning (Zhu and Gupta 2017) with tfmot, in shares of the stage."""

import fnmatch
from pathlib import Path
from typing import Any

from tfopt.compat import keras, tfmot
from tfopt.config import ConfigError, RunError, bounded, having, nearest, spec
from tfopt.facts import Facts, sparsity
from tfopt.stages.base import Stage

# The Keras layers whose kernels tfmot masks; it leaves depthwise kernels dense.
_PRUNED = (
    "Conv1D",
    "Conv2D",
    "Conv2DTranspose",
    "Conv3D",
    "Conv3DTranspose",
    "Dense",
    "Embedding",
)
_TOLERANCE = 0.01
_UPDATES = 100


@spec
class Polynomial:
    """Sparsity grows from 0 at `begin` to the asked one at `end`, both shares of the stage."""

    begin: float = bounded(0.0, least=0, below=1)
    end: float = bounded(0.6, above=0, most=1)
    power: float = bounded(3.0, above=0)

    def rules(self) -> Any:
        """Yield what is impossible."""
        if self.begin >= self.end:
            yield "end", f"a share of the stage after begin ({self.begin:g})"

    def over(self, steps: int, target: float) -> Any:
        """Return tfmot's schedule to sparsity `target` for a stage of `steps` steps."""
        begin, span = _whole(self.begin, steps), round((self.end - self.begin) * steps)
        frequency = max(span // _UPDATES, 1)
        # tfmot updates masks at begin + n * frequency only: an end between two of these
        # would never be reached.
        end = min(begin + max(span // frequency, 1) * frequency, steps)
        frequency = min(frequency, end - begin)
        power: Any = self.power
        return tfmot.sparsity.keras.PolynomialDecay(
            0.0, target, begin, end, power=power, frequency=frequency
        )


@spec
class AtOnce:
    """The asked sparsity from `begin` on, a share of the stage; masks move until its end."""

    begin: float = bounded(0.0, least=0, below=1)

    def over(self, steps: int, target: float) -> Any:
        """Return tfmot's schedule to sparsity `target` for a stage of `steps` steps."""
        frequency = max(steps // _UPDATES, 1)
        return tfmot.sparsity.keras.ConstantSparsity(
            target, _whole(self.begin, steps), frequency=frequency
        )


def _whole(share: float, steps: int) -> int:
    return min(round(share * steps), steps - 1)


@spec
class Prune(Stage):
    """Set the smallest weights of each kernel to zero while training.

    `sparsity` is the share of zeros in the kernels that are pruned: those of convolutions,
    Dense and Embedding but for layers whose name matches one of the patterns in `exclude`.
    """

    name: str = "prune"
    sparsity: float = bounded(0.8, above=0, below=1)
    growth: Any = having("over", Polynomial)
    exclude: tuple[str, ...] = ()

    def prepare(self, model: "keras.Model", steps: int, samples: Any) -> "keras.Model":
        """Return `model` with a pruning wrapper around each layer that is pruned."""
        del samples
        names = [layer.name for layer in model.layers]
        for pattern in self.exclude:
            if not fnmatch.filter(names, pattern):
                raise ConfigError(
                    f"stage {self.name!r}, exclude: expected names or patterns of layers, "
                    f"received {pattern!r}; {nearest(pattern, names)}"
                )
        if not any(self._covers(layer.name, type(layer).__name__) for layer in model.layers):
            raise ConfigError(
                f"stage {self.name!r}: expected a model with a layer to prune "
                f"({', '.join(_PRUNED)}), received none that exclude leaves; shorten exclude."
            )
        schedule = self.growth.over(steps, self.sparsity)

        def wrap(layer: "keras.layers.Layer") -> "keras.layers.Layer":
            if not self._covers(layer.name, type(layer).__name__):
                return layer
            return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule)

        return keras.models.clone_model(model, clone_function=wrap)

    def callbacks(self, log_dir: Path) -> list:
        """Return tfmot's step counter, which also masks the weights at the end of an epoch."""
        del log_dir
        return [tfmot.sparsity.keras.UpdatePruningStep()]

    def finish(self, model: "keras.Model") -> "keras.Model":
        """Return the model without pruning wrappers."""
        return tfmot.sparsity.keras.strip_pruning(model)

    def check(self, before: Facts, after: Facts) -> None:
        """Raise RunError unless the kernels are as sparse as asked, within a point."""
        del before
        covered = [k for k in after.kernels if self._covers(k.layer, k.layer_type)]
        reached = sparsity(covered)
        # Half a weight per kernel on top: a kernel of few weights can't be closer.
        rounding = 0.5 * len(covered) / max(sum(kernel.size for kernel in covered), 1)
        if abs(reached - self.sparsity) > _TOLERANCE + rounding:
            raise RunError(
                f"stage {self.name!r}: expected sparsity {self.sparsity:.3f} in "
                f"{len(covered)} kernels, measured {reached:.3f}; train for more epochs or end "
                "the growth earlier."
            )

    def _covers(self, layer: str, layer_type: str) -> bool:
        excluded = any(fnmatch.fnmatchcase(layer, pattern) for pattern in self.exclude)
        return layer_type in _PRUNED and not excluded

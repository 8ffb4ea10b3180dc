"""What all ways of pruning share: how much, in which pattern, from which layers."""

import logging
from collections.abc import Iterator
from typing import Any, ClassVar

from tfopt.compat import keras, tf
from tfopt.errors import ConfigError, RunError
from tfopt.facts import Facts, Kernel, kernel_variables, measure
from tfopt.spec import bounded, having, spec
from tfopt.stages.allocation import Uniform, allocate
from tfopt.stages.base import Stage
from tfopt.stages.exclude import check_exclude, exclude_rules, excluded
from tfopt.stages.hold import is_sparse
from tfopt.stages.patterns import Unstructured, folded, has, losing, most

_LOG = logging.getLogger(__name__)
POINT = 0.01
USUAL = 0.8
# Only its equation tells the inputs of the one from its outputs; of the other's rows each is
# looked up alone, and none are summed over.
_NO_TILES = {"EinsumDense", "Embedding"}


@spec
class Sparsify(Stage):
    """Set weights to zero until the whole model has `sparsity`; see Prune and OneShotPrune.

    `sparsity` is the share of zeros in all kernels of the model, also in those that stay
    dense, for which the others make up; `pattern` says which weights go together,
    `allocation` how much each layer loses. None is what an N:M pattern gives by itself, and 0.8
    in any other pattern. Layers whose name matches a pattern in `exclude`, or that have a role
    that is in it (`First()`, `Last()`), stay dense.
    """

    prunes: ClassVar[tuple[str, ...]] = ()

    sparsity: float | None = bounded(None, above=0, below=1)
    pattern: Any = having("may_go", Unstructured)
    allocation: Any = having("scores", Uniform)
    exclude: tuple[Any, ...] = ()

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield what is impossible."""
        yield from Stage.rules(self)
        yield from exclude_rules(self)
        default = type(self).__dataclass_fields__["allocation"].default_factory
        if self.pattern.fixed and self.allocation not in (Uniform(), default()):
            yield "allocation", "none with an N:M pattern, which gives every layer its own share"

    def zeros(self, model: "keras.Model", samples: Any) -> dict[Kernel, int]:
        """Return how many zeros each kernel shall have; raise ConfigError if that can't be."""
        facts = measure(model)
        kernels, total = self._prunable(facts), sum(k.size for k in facts.kernels)
        dense = [kernel for kernel in facts.kernels if kernel not in kernels]
        there = sum(kernel.zeros for kernel in dense if is_sparse(kernel.zeros, kernel.size))
        if self.pattern.fixed:
            zeros = self._in_pattern(kernels)
        else:
            wanted = round(self._asked * total) - there
            zeros = allocate(self.allocation, self.pattern, model, samples, kernels, wanted)
        given = (there + self._reached(model, zeros)) / total
        if self._asked and abs(given - self._asked) > self._tolerance(facts):
            raise ConfigError(self._unreachable(kernels, dense, given, total))
        return zeros

    def check(self, before: Facts, after: Facts) -> None:
        """Raise RunError unless the whole model is as sparse as asked, within a point."""
        del before
        most = {kernel.key: self._most(kernel) for kernel in self._covered(after)}
        if unfit := [k.key for k in self._named(after) if not most.get(k.key)]:
            _LOG.info(
                "stage %s: dense, as the pattern doesn't fit: %s.", self.name, ", ".join(unfit)
            )
        given = sum(most.values()) if self.pattern.fixed else 0
        asked = self._asked or given / sum(kernel.size for kernel in after.kernels)
        missing = asked - after.sparsity
        # What an N:M pattern gives comes on top of other zeros.
        if max(missing, -missing if self._asked else 0) > self._tolerance(after):
            raise RunError(
                f"stage {self.name!r}: expected sparsity {asked:.3f} over all kernels, measured "
                f"{after.sparsity:.3f}; train for more epochs or end the growth earlier."
            )

    def check_pattern(self, model: "keras.Model") -> None:
        """Raise RunError where a kernel of the finished `model` hasn't the zeros of its N:M."""
        values, pattern = kernel_variables(model), self.pattern
        for kernel in self._covered(measure(model)) if pattern.fixed else ():
            if not has(pattern, folded(values[kernel.key], kernel.inner_type, kernel.name)):
                raise RunError(
                    f"stage {self.name!r}: expected {pattern.zeros} zeros in {pattern.of} "
                    f"consecutive inputs of layer {kernel.layer!r}, measured fewer; train for "
                    "more epochs or end the growth earlier."
                )

    def _unreachable(
        self, kernels: list[Kernel], dense: list[Kernel], given: float, total: int
    ) -> str:
        there = sum(kernel.zeros for kernel in kernels)
        if self.pattern.fixed:
            nearest, remedy = "what they give", "leave sparsity out"
        elif given > self._asked and there:
            nearest, remedy = "zero with what already is, and stays", "ask for more"
        else:
            nearest, remedy = "the nearest that they can", "ask for less"
        kinds = ", ".join(dict.fromkeys(kernel.layer_type for kernel in kernels))
        return (
            f"stage {self.name!r}: expected a sparsity that its {len(kernels)} kernels ({kinds}) "
            f"can give in this pattern, received {self._asked:g}; {given:.3f} is {nearest} "
            f"({sum(k.size for k in dense):,} of {total:,} weights stay dense, {there:,} of the "
            f"others were zero before): {remedy}, or change exclude or pattern."
        )

    @property
    def _asked(self) -> float:
        """The sparsity that was asked for; 0 where it is the pattern's own."""
        return self.sparsity or (0.0 if self.pattern.fixed else USUAL)

    def _prunable(self, facts: Facts) -> list[Kernel]:
        check_exclude(self, facts.kernels)
        kernels = self._covered(facts)
        if not kernels:
            raise ConfigError(
                f"stage {self.name!r}: expected a model with a layer to prune "
                f"({', '.join(self.prunes)}), received none that exclude leaves; shorten exclude."
            )
        return kernels

    def _in_pattern(self, kernels: list[Kernel]) -> dict[Kernel, int]:
        zeros = {kernel: self._most(kernel) for kernel in kernels}
        if not any(zeros.values()):
            raise ConfigError(
                f"stage {self.name!r}, pattern: expected one that fits a layer, received "
                f"{self.pattern!r}, which gives none of {len(kernels)} kernels a zero; they have "
                "too few inputs: take another pattern."
            )
        return zeros

    def _named(self, facts: Facts) -> list[Kernel]:
        dense = excluded(self, facts.kernels)
        kernels = [k for k in facts.kernels if k.layer not in dense and "depthwise" not in k.name]
        return [kernel for kernel in kernels if kernel.layer_type in self.prunes]

    def _covered(self, facts: Facts) -> list[Kernel]:
        refused = set() if self.pattern.tile == (1, 1) else _NO_TILES
        return [kernel for kernel in self._named(facts) if kernel.inner_type not in refused]

    def _most(self, kernel: Kernel) -> int:
        return most(self.pattern, kernel.shape, kernel.inner_type, kernel.name)

    def _reached(self, model: "keras.Model", zeros: dict[Kernel, int]) -> int:
        """Return how many zeros there will be, with those that lie outside of the pattern."""
        values, reached = kernel_variables(model), 0
        for kernel, count in zeros.items():
            # All of them zero is what an initializer made.
            if is_sparse(kernel.zeros, kernel.size) and kernel.zeros < kernel.size:
                weights = folded(values[kernel.key], kernel.inner_type, kernel.name)
                gone = losing(self.pattern, tf.square(weights), count)
                count = int(tf.math.count_nonzero(gone | (weights == 0)))
            reached += count
        return reached

    def _tolerance(self, facts: Facts) -> float:
        # A weight on top: a model of few can't be closer. A large block is no excuse.
        return POINT + 1 / max(sum(kernel.size for kernel in facts.kernels), 1)

"""Structured pruning: channels are removed, and what is left is a smaller plain model."""

import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from tfopt.compat import keras
from tfopt.errors import ConfigError, RunError
from tfopt.facts import Facts, Kernel, kernel_variables, measure
from tfopt.graph import rebuilt
from tfopt.spec import bounded, having, spec
from tfopt.stages import budget
from tfopt.stages.base import Stage
from tfopt.stages.channels import Channels, coupled
from tfopt.stages.exclude import check_exclude, exclude_rules, excluded
from tfopt.stages.hold import is_sparse
from tfopt.stages.importance import L1
from tfopt.stages.patterns import folded, n_of_m
from tfopt.stages.sparsify import POINT

_LOG = logging.getLogger(__name__)
_COSTS = {"params": budget.params, "macs": budget.macs}
_NOUNS = {"params": "parameters", "macs": "multiply-accumulates"}


@spec
class Shrink(Stage):
    """Remove the channels that are worth least, everywhere at once, then fine-tune.

    Either `params` or `macs` says what shall be left at most: a share of what the model has
    (below 1), or a number of parameters or of multiply-accumulates for one example (above 1);
    the other is 0.
    `score` says what a channel is worth; channels compete over the whole model, each relative
    to what is left of its own layer. Widths are rounded to a `multiple`, which kernels of
    devices like; a layer no wider than that is left. Channels are kept in layers in `exclude` (as
    in Prune), in the inputs and the logits, and where a layer mixes them in a way that isn't
    known.
    """

    name: str = "shrink"
    params: float = bounded(0.0, least=0)
    macs: float = bounded(0.0, least=0)
    score: Any = having("rate", L1)
    multiple: int = bounded(8, least=1)
    exclude: tuple[Any, ...] = ()

    def rules(self) -> Iterator[tuple[str, str]]:
        """Yield what is impossible."""
        yield from Stage.rules(self)
        yield from exclude_rules(self)
        if bool(self.params) == bool(self.macs):
            given = f", and the other 0 (macs is {self.macs:g})" if self.macs else " to be given"
            yield "params", f"either this or macs{given}"
        elif self._asked == 1 or (self._asked > 1 and self._asked % 1):
            yield self._what, "a share below 1 or a whole number above 1"

    def prepare(self, model: "keras.Model", steps: int, samples: Any) -> "keras.Model":
        """Return a smaller model, or raise ConfigError with the least that is possible."""
        del steps
        if any(isinstance(layer, keras.Model) for layer in model.layers):
            model = rebuilt(model)
        kernels = measure(model).kernels
        check_exclude(self, kernels)
        self._check_pattern(model, kernels)
        found = coupled(model, excluded(self, kernels).__contains__)
        kinds = budget.kinds(found)
        cost = _COSTS[self._what](model, found, kinds)
        cuts = budget.cuts(self._rated(model, found, samples), kinds, self.multiple)
        target = self._target(cost(kinds.sizes))
        self._check_target(target, cost(kinds.sizes), cost(cuts.made(len(cuts.sizes), kinds.sizes)))
        left = budget.fitted(cuts, kinds.sizes, cost, target)
        return without(model, found, budget.removed(cuts, kinds.sizes, left))

    def check(self, before: Facts, after: Facts) -> None:
        """Raise RunError unless `after` costs what was asked for, and not far less.

        A multiple more of any layer would exceed the target, and no cut takes more than half of
        both axes of a kernel: so at least a quarter of the target is left.
        """
        whole, measured = (getattr(facts, self._what) for facts in (before, after))
        target, noun = self._target(whole), _NOUNS[self._what]
        if not target / 4 <= measured <= target:
            raise RunError(
                f"stage {self.name!r}: expected between {target / 4:,.0f} and {target:,.0f} "
                f"{noun}, measured {measured:,}."
            )
        _LOG.info(
            "stage %s: %s of %s %s are left, %.0f%%.",
            *(self.name, f"{measured:,}", f"{whole:,}", noun, 100 * measured / whole),
        )
        if after.sparsity < before.sparsity - POINT:
            _LOG.warning(
                "stage %s: of what is left %.1f%% are zeros, of the whole model it were %.1f%%, "
                "since channels of zeros go first; to keep that share put it before the stage that "
                "prunes.",
                *(self.name, 100 * after.sparsity, 100 * before.sparsity),
            )

    def _check_pattern(self, model: "keras.Model", kernels: Sequence[Kernel]) -> None:
        values = kernel_variables(model)
        sparse = [
            folded(values[kernel.key], kernel.inner_type, kernel.name)
            for kernel in kernels
            if is_sparse(kernel.zeros, kernel.size)
        ]
        if sparse and (pattern := n_of_m(sparse)):
            raise ConfigError(
                f"stage {self.name!r}: expected a model without N:M zeros, received one with "
                f"{pattern.zeros} of {pattern.of}, which don't survive the loss of channels; put "
                f"{self.name!r} before the stage that prunes."
            )

    def _rated(self, model: "keras.Model", found: Channels, samples: Any) -> np.ndarray:
        try:
            return self.score.rate(model, found, samples)
        except ConfigError as error:
            raise ConfigError(f"stage {self.name!r}, score: {error}") from error

    @property
    def _what(self) -> str:
        return "params" if self.params else "macs"

    @property
    def _asked(self) -> float:
        return getattr(self, self._what)

    def _target(self, whole: int) -> float:
        return self._asked * whole if self._asked < 1 else self._asked

    def _check_target(self, target: float, whole: int, least: int) -> None:
        if least >= whole:
            raise ConfigError(
                f"stage {self.name!r}: expected channels that can be removed, found none in groups "
                f"of {self.multiple} (units of recurrent and attention layers, inputs and logits "
                "stay); lower multiple, shorten exclude or leave the stage out."
            )
        if not least <= target < whole:
            raise ConfigError(
                f"stage {self.name!r}, {self._what}: expected at least {least:,} "
                f"{_NOUNS[self._what]}, the smallest possible, and fewer than the {whole:,} of the "
                f"model, received {target:,.0f}; ask for another number, lower multiple "
                f"({self.multiple}) or shorten exclude."
            )


def without(model: "keras.Model", found: Channels, removed: np.ndarray) -> "keras.Model":
    """Return `model` as a smaller one that lacks the channels whose numbers are `removed`."""
    stay = np.ones(found.count, bool)
    stay[removed] = False

    def smaller(layer: Any) -> Any:
        config = layer.get_config()
        if layer.name in found.fields:
            field, of = found.fields[layer.name]
            config[field] = _narrowed(config[field], int(stay[of].sum()))
        return type(layer).from_config(config)

    small = rebuilt(model, smaller)
    kept: dict[str, tuple[Any, dict[int, np.ndarray]]] = {}
    for axis in found.axes:
        _, values = kept.setdefault(
            axis.layer.name, (axis.layer, {id(w): w.numpy() for w in axis.layer.weights})
        )
        values[id(axis.weight)] = np.compress(
            stay[axis.channels], values[id(axis.weight)], axis.number
        )
    for name, (layer, values) in kept.items():
        small.get_layer(name).set_weights([values[id(weight)] for weight in layer.weights])
    return small


def _narrowed(width: Any, kept: int) -> Any:
    """Return the value of a config's field for `kept` channels; a shape has them at its end."""
    if isinstance(width, int):
        return kept
    *rest, last = width
    return (*rest, last if last == -1 else kept)

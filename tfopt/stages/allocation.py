"""Where the sparsity goes: how many weights each layer loses for a sparsity of the whole.

Every weight gets a score that compares it with those of other layers, and the least ones of
all go. An allocation is what makes this score of what the loss of a weight costs.
"""

from typing import Any

import numpy as np

from tfopt.compat import keras
from tfopt.facts import Kernel, kernel_variables
from tfopt.spec import bounded, spec
from tfopt.stages import patterns
from tfopt.stages.scores import fisher

# No layer keeps less than this share of what all keep on the average: a layer that is cut
# through leaves nothing to train (Tanaka et al. 2020, "Pruning neural networks without any
# data by iteratively conserving synaptic flow": layer collapse).
_LEAST = 0.1


@spec
class Uniform:
    """The same share of every layer."""

    def costs(self, model: "keras.Model", samples: Any) -> dict[str, np.ndarray]:
        """Return by `Kernel.key` what the loss of each weight costs."""
        del samples
        return _squares(model)

    def scores(self, costs: np.ndarray, gains: np.ndarray, shape: tuple) -> np.ndarray:
        """Return the score of units of which each gives `gains` zeros, in rising order."""
        del costs, shape
        return 1 / _kept(gains)


@spec
class ERK:
    """Dense where a layer is thin: kept is a share proportional to sum(shape) / prod(shape).

    The Erdős-Rényi kernel of Evci et al. 2020, "Rigging the Lottery: Making All Tickets
    Winners".
    """

    def costs(self, model: "keras.Model", samples: Any) -> dict[str, np.ndarray]:
        """Return by `Kernel.key` what the loss of each weight costs."""
        del samples
        return _squares(model)

    def scores(self, costs: np.ndarray, gains: np.ndarray, shape: tuple) -> np.ndarray:
        """Return the score of units of which each gives `gains` zeros, in rising order."""
        del costs
        return sum(shape) / np.prod(shape, dtype=float) / _kept(gains)


@spec
class Global:
    """One threshold of magnitude over all layers, each normalised by what it has left.

    The score is `w² / sum(v²)` over all `v` of the layer that are no smaller than `w`, which
    is what the layer's output loses of its rest by losing `w` (Lee et al. 2021,
    "Layer-adaptive Sparsity for the Magnitude-based Pruning").
    """

    def costs(self, model: "keras.Model", samples: Any) -> dict[str, np.ndarray]:
        """Return by `Kernel.key` what the loss of each weight costs."""
        del samples
        return _squares(model)

    def scores(self, costs: np.ndarray, gains: np.ndarray, shape: tuple) -> np.ndarray:
        """Return the score of units that cost `costs` a zero, in rising order."""
        del shape
        rest = np.cumsum((costs * gains)[::-1])[::-1]
        return np.divide(costs, rest, out=np.zeros_like(costs), where=rest > 0)


@spec
class Sensitivity:
    """One threshold over all layers of what the loss of a weight does to the training loss.

    It is estimated as `fisher * w² / 2` from `batches` batches of the training data (Theis et
    al. 2018, "Faster gaze prediction with dense networks and Fisher pruning"). It decides how
    much each layer loses; which weights these are is the stage's to choose.
    """

    batches: int = bounded(8, least=1)

    def costs(self, model: "keras.Model", samples: Any) -> dict[str, np.ndarray]:
        """Return by `Kernel.key` what the loss of each weight costs."""
        squares, curvature = _squares(model), fisher(model, samples, batches=self.batches)
        return {name: curvature[name] * squares[name] for name in squares}

    def scores(self, costs: np.ndarray, gains: np.ndarray, shape: tuple) -> np.ndarray:
        """Return the score of units that cost `costs` a zero, in rising order."""
        del gains, shape
        return costs


def allocate(
    allocation: Any,
    pattern: Any,
    model: "keras.Model",
    samples: Any,
    kernels: list[Kernel],
    zeros: int,
) -> dict[Kernel, int]:
    """Return how many of the `zeros` go to each of `kernels`, which are of `model`.

    Zeros that a kernel has already are among its own, and one unit of each kernel stays. The
    sum is less than `zeros` where there are no more.
    """
    costs = allocation.costs(model, samples)
    least = _LEAST * max(1 - zeros / sum(kernel.size for kernel in kernels), 0)
    scores, gains = [], []
    for kernel in kernels:
        weights = patterns.folded(costs[kernel.key], kernel.inner_type, kernel.name)
        cost, gain = _rising(pattern, weights)
        score = np.array(allocation.scores(cost, gain, kernel.shape), np.float64)
        if cost.any():  # an initializer may have made all of them zero
            score[cost == 0] = 0
        may_go = (_kept(gain) > least)[:-1]
        scores.append(score[:-1][may_go])
        gains.append(gain[:-1][may_go])
    counts = _counted(scores, gains, zeros)
    return dict(zip(kernels, counts.tolist(), strict=True))


def _squares(model: "keras.Model") -> dict[str, np.ndarray]:
    return {name: np.square(value.numpy()) for name, value in kernel_variables(model).items()}


def _rising(pattern: Any, weights: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return cost per zero and zeros of the units of a kernel, in rising order of cost."""
    cost, gain = (values.numpy() for values in patterns.units(pattern, weights))
    if gain.min() == gain.max():  # then the values alone are sorted, in a fifth of the time
        return np.sort(cost), gain
    order = np.argsort(cost)
    order = order[gain[order] > 0]
    return cost[order], gain[order]


def _kept(gains: np.ndarray) -> np.ndarray:
    """Return the share of weights that are left as long as a unit is, in rising order of cost."""
    return np.cumsum(gains[::-1])[::-1] / gains.sum()


def _counted(scores: list[np.ndarray], gains: list[np.ndarray], zeros: int) -> np.ndarray:
    """Return how many zeros each kernel gives if the least of all `scores` go.

    Scores rise within a kernel and are not negative. The threshold is found bit by bit, as the
    bits of such numbers have their order, which saves sorting all weights of a model.
    """
    bits = [score.view(np.int64) for score in scores]
    sums = [np.concatenate([[0], np.cumsum(gain)]) for gain in gains]

    def below(threshold: int, side: Any) -> np.ndarray:
        places = [np.searchsorted(kernel, threshold, side) for kernel in bits]
        return np.array([sum_[place] for sum_, place in zip(sums, places, strict=True)])

    threshold = 0
    for bit in reversed(range(63)):
        higher = threshold + 2**bit
        threshold = higher if below(higher, "left").sum() <= zeros else threshold
    certain, tied = below(threshold, "left"), below(threshold, "right")
    ties = tied - certain
    return certain + np.clip(zeros - certain.sum() - np.cumsum(ties) + ties, 0, ties)

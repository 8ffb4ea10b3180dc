"""How many channels to remove, and which, to meet a number of parameters or of operations."""

import bisect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tfopt.compat import keras
from tfopt.facts import KERNELS, weight_name
from tfopt.macs import positions
from tfopt.stages.channels import STAYS, Channels


@dataclass(frozen=True, slots=True)
class Kinds:
    """Channels of one kind occur equally often on every axis, so that each costs the same.

    `of` has the kind of each channel. A row of `occurrences` tells how often a channel of each
    kind occurs on an axis; `row` finds it by the axis's array of channels.
    """

    of: np.ndarray
    occurrences: np.ndarray
    row: dict[int, int]

    @property
    def sizes(self) -> np.ndarray:
        """The number of channels of each kind."""
        return np.bincount(self.of)


def kinds(channels: Channels) -> Kinds:
    """Return the kinds of `channels`."""
    tensors = list({id(axis.channels): axis.channels for axis in channels.axes}.values())
    counts = [np.bincount(tensor, minlength=channels.count) for tensor in tensors]
    of = (np.arange(channels.count) != STAYS).astype(np.int64)
    for count in counts:
        of = np.unique(of * (count.max(initial=0) + 1) + count, return_inverse=True)[1]
    _, first = np.unique(of, return_index=True)
    row = {id(tensor): index for index, tensor in enumerate(tensors)}
    occurrences = np.reshape(counts, (len(counts), channels.count))[:, first]
    return Kinds(of, occurrences.astype(np.int64), row)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model costs as a function of how many channels of each kind it keeps.

    The cost of a weight is a factor times the lengths of those of its axes that have channels,
    of which no kernel has more than two; `axes` (weights, 2) are the numbers of these.
    """

    occurrences: np.ndarray
    factors: np.ndarray
    axes: np.ndarray

    def __call__(self, kept: np.ndarray) -> int:
        """Return the cost for `kept` channels of each kind."""
        lengths = np.append(self.occurrences @ kept, 1)
        return int((self.factors * lengths[self.axes].prod(1)).sum())


def params(model: "keras.Model", channels: Channels, kinds: Kinds) -> Cost:
    """Return the number of parameters of the flat `model` as a cost."""
    return _cost(model, channels, kinds, lambda layer, weight: 1)


def macs(model: "keras.Model", channels: Channels, kinds: Kinds) -> Cost:
    """Return the multiply-accumulates of the flat `model` as a cost."""

    def each(layer: Any, weight: Any) -> int:
        return positions(model, layer, weight) if weight_name(weight) in KERNELS else 0

    return _cost(model, channels, kinds, each)


def _cost(model: "keras.Model", channels: Channels, kinds: Kinds, each: Callable) -> Cost:
    """Return the cost of `model` where one element of a weight costs `each(layer, weight)`."""
    on: dict[int, list] = {}
    for axis in channels.axes:
        on.setdefault(id(axis.weight), []).append(axis.channels)
    none = len(kinds.occurrences)  # where `Cost` has a length of 1
    factors, axes = [], []
    weights = {id(w): (layer, w) for layer in model.layers for w in layer.weights}
    for layer, weight in weights.values():
        tensors = on.get(id(weight), [])
        size = math.prod(weight.shape) // math.prod(map(len, tensors))
        factors.append(size * each(layer, weight))
        axes.append(([kinds.row[id(tensor)] for tensor in tensors] + [none, none])[:2])
    return Cost(kinds.occurrences, np.array(factors), np.array(axes))


@dataclass(frozen=True, slots=True)
class Cuts:
    """What can be removed, least important first: each cut is a few channels of one kind.

    Cut `i` takes the next `sizes[i]` channels in `order[kinds[i]]`. After all cuts of a kind
    that come before, its width is a multiple.
    """

    kinds: np.ndarray
    sizes: np.ndarray
    order: dict[int, np.ndarray]

    def made(self, count: int, widths: np.ndarray) -> np.ndarray:
        """Return what the first `count` cuts leave of `widths`, the channels of each kind."""
        cut = np.bincount(self.kinds[:count], self.sizes[:count], minlength=len(widths))
        return widths - cut.astype(np.int64)


def cuts(scores: np.ndarray, kinds: Kinds, multiple: int) -> Cuts:
    """Return all cuts to widths that are a multiple, which at least one multiple survives.

    `scores` (channels,) is what a channel is worth, NaN where that is unknown: kinds with such
    a channel are left, as are those no wider than one multiple. The worth of a cut is the mean
    of its channels relative to the mean of the kind, divided by the share of the kind's worth
    that is left after it: where all channels are alike, all kinds shrink by the same share.
    """
    found: list[tuple[np.ndarray, ...]] = [(np.zeros(0),) * 3]
    order = {}
    for kind, size in enumerate(kinds.sizes):
        members = np.flatnonzero(kinds.of == kind)
        worth = scores[members]
        if kind == kinds.of[STAYS] or size <= multiple or np.isnan(worth).any():
            continue
        order[kind] = members[np.argsort(worth, kind="stable")]
        sizes = np.full((size - 1) // multiple, multiple)
        sizes[0] = size - multiple * len(sizes)
        ends = np.cumsum(sizes)
        lost = np.cumsum(scores[order[kind]])[ends - 1] / (worth.sum() or 1)
        means = np.diff(lost, prepend=0) * size / sizes
        found.append((np.full(len(sizes), kind), sizes, means / np.maximum(1 - lost, 1e-12)))
    numbers, sizes, worths = map(np.concatenate, zip(*found, strict=True))
    ranked = np.argsort(worths, kind="stable")
    return Cuts(numbers[ranked].astype(np.int64), sizes[ranked].astype(np.int64), order)


def fitted(cuts: Cuts, widths: np.ndarray, cost: Cost, target: float) -> np.ndarray:
    """Return the widest widths of the kinds by which `cost` is at most `target`.

    Of the cuts that are needed in their order, those that turn out to be needless once the
    later ones are made are taken back. The cost of all cuts must be at most `target`.
    """
    enough = range(len(cuts.sizes) + 1)
    count = bisect.bisect_left(enough, -target, key=lambda n: -cost(cuts.made(n, widths)))
    left, needed = cuts.made(count, widths), set()
    for kind, size in zip(cuts.kinds[:count][::-1], cuts.sizes[:count][::-1], strict=True):
        wider = left.copy()
        wider[kind] += size
        if kind not in needed and cost(wider) <= target:
            left = wider
        else:
            needed.add(kind)
    return left


def removed(cuts: Cuts, widths: np.ndarray, left: np.ndarray) -> np.ndarray:
    """Return the numbers of the channels by whose removal the `widths` become those `left`."""
    dropped = [order[: widths[kind] - left[kind]] for kind, order in cuts.order.items()]
    return np.concatenate([np.zeros(0, np.int64), *dropped])

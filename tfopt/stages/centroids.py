"""k-means in one dimension: the values that the weights of a kernel shall share.

All channels are clustered at once, on weights that are sorted once: a step of Lloyd's
algorithm is then a search for the midpoints between centroids and a difference of cumulative
sums. tfmot has the initialisations alone, in float32, one channel after another, and leaves the
rest to training; scikit-learn clusters one channel at a time.
"""

from typing import Any

import numpy as np

from tfopt.spec import spec

# One-dimensional clusters settle in some dozens of steps; what moves later are a few weights.
_STEPS = 200
_DRAWN_FROM = 2**16


@spec
class Linear:
    """Centroids evenly spaced from the smallest weight to the largest: keeps large weights."""

    def centroids(
        self, values: np.ndarray, counted: np.ndarray, number: int, rng: Any
    ) -> np.ndarray:
        """Return (channels, number) from sorted (channels, weights), those `counted`."""
        del rng
        low, high = _limits(values, counted)
        return low + (high - low) * np.linspace(0, 1, number)


@spec
class Random:
    """Centroids drawn uniformly between the smallest weight and the largest."""

    def centroids(
        self, values: np.ndarray, counted: np.ndarray, number: int, rng: Any
    ) -> np.ndarray:
        """Return (channels, number) from sorted (channels, weights), those `counted`."""
        low, high = _limits(values, counted)
        return low + (high - low) * np.sort(rng.random((len(values), number)))


@spec
class Density:
    """Centroids at evenly spaced quantiles of the weights: as many weights for each."""

    def centroids(
        self, values: np.ndarray, counted: np.ndarray, number: int, rng: Any
    ) -> np.ndarray:
        """Return (channels, number) from sorted (channels, weights), those `counted`."""
        del rng
        shares = np.broadcast_to((np.arange(number) + 0.5) / number, (len(values), number))
        return _picked(values, counted.astype(float), shares)


@spec
class KMeansPlusPlus:
    """Centroids drawn from the weights, each by its squared distance to those drawn before.

    Source: Arthur and Vassilvitskii 2007, "k-means++: The Advantages of Careful Seeding".
    """

    def centroids(
        self, values: np.ndarray, counted: np.ndarray, number: int, rng: Any
    ) -> np.ndarray:
        """Return (channels, number) from sorted (channels, weights), those `counted`."""
        # On the quantiles of a large kernel: a draw then costs nothing beside the sorting.
        stride = -(-values.shape[1] // _DRAWN_FROM)
        values, counted = values[:, ::stride], counted[:, ::stride]
        draws = rng.random((number, len(values), 1))
        found = [_picked(values, counted.astype(float), draws[0])]
        distance = np.where(counted, (values - found[0]) ** 2, 0)
        for draw in draws[1:]:
            found.append(_picked(values, distance, draw))
            np.minimum(distance, (values - found[-1]) ** 2, out=distance)
        return np.sort(np.concatenate(found, axis=1))


def _limits(values: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = np.where(counted, values, np.inf).min(1, keepdims=True)
    high = np.where(counted, values, -np.inf).max(1, keepdims=True)
    some = counted.any(1, keepdims=True)
    return np.where(some, low, 0), np.where(some, high, 0)


def _picked(values: np.ndarray, density: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the values at `shares` (channels, n) of each channel's cumulative `density`."""
    channels, size = values.shape
    cumulative = np.cumsum(density, axis=1)
    total = np.maximum(cumulative[:, -1:], np.finfo(float).tiny)
    # Channels one after another on one axis, so that one search serves all.
    apart = np.arange(channels)[:, None]
    places = np.searchsorted((cumulative / total + apart).ravel(), shares + apart, side="right")
    places = np.clip(places - apart * size, 0, size - 1)
    return np.take_along_axis(values, places, axis=1)


def shared(
    values: np.ndarray, clusters: int, initialization: Any, *, sparse: bool, seed: int = 0
) -> np.ndarray:
    """Return `values` (weights, channels), each set to one of at most `clusters` of its channel.

    Where `sparse`, zeros stay: 0 is a value of its own, and the others share what is left.
    """
    by_channel = np.ascontiguousarray(values.T, float)
    order = np.argsort(by_channel, axis=1)
    ordered = np.take_along_axis(by_channel, order, axis=1)
    counted = ordered != 0 if sparse else np.ones(ordered.shape, bool)
    number, rng = clusters - sparse, np.random.default_rng(seed)
    centroids = initialization.centroids(ordered, counted, number, rng)
    nearest = _settled(ordered, counted, centroids)
    result = np.empty_like(ordered)
    np.put_along_axis(result, order, np.where(counted, nearest, 0), axis=1)
    return result.T.astype(values.dtype)


def _settled(values: np.ndarray, counted: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return the centroid of each of the sorted `values` when Lloyd's algorithm has settled."""
    channels, size = values.shape
    sums = _from_zero(np.where(counted, values, 0))
    counts = _from_zero(counted.astype(float))
    search = _Search(values)
    edges = search.edges(centroids)
    for _ in range(_STEPS):
        members = np.diff(np.take_along_axis(counts, edges, 1))
        means = np.diff(np.take_along_axis(sums, edges, 1)) / np.maximum(members, 1)
        centroids = np.where(members > 0, means, centroids)
        earlier, edges = edges, search.edges(centroids)
        if np.array_equal(earlier, edges):
            break
    return np.repeat(centroids.ravel(), np.diff(edges).ravel()).reshape(channels, size)


def _from_zero(summands: np.ndarray) -> np.ndarray:
    return np.pad(np.cumsum(summands, axis=1), ((0, 0), (1, 0)))


class _Search:
    """Where the cells of centroids end among the sorted values of their channel."""

    def __init__(self, values: np.ndarray) -> None:
        self._channels, self._size = values.shape
        self._low = values[:, :1]
        self._span = np.maximum(values[:, -1:] - self._low, np.finfo(float).tiny)
        # Channels one after another on one axis, so that one search serves all.
        self._apart = 2.0 * np.arange(self._channels)[:, None]
        self._axis = (self._scaled(values) + self._apart).ravel()

    def edges(self, centroids: np.ndarray) -> np.ndarray:
        """Return (channels, clusters + 1): the places from which on each centroid is nearest."""
        between = (centroids[:, 1:] + centroids[:, :-1]) / 2
        places = np.searchsorted(self._axis, self._scaled(between) + self._apart)
        inner = places - np.arange(self._channels)[:, None] * self._size
        return np.pad(inner, ((0, 0), (1, 1)), constant_values=(0, self._size))

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        return np.clip((values - self._low) / self._span, -0.5, 1.5)

"""How the weights of a model are spread, before a stage and after it, in a few numbers."""

import numpy as np

from tfopt.compat import keras
from tfopt.facts import kernel_variables

_BINS = 41  # odd, so that zeros have one of their own
_SAMPLED = 1 << 17
_SHOWN = 99.9


def sampled(model: "keras.Model") -> np.ndarray:
    """Return weights of all kernels of `model`, of a large one every n-th."""
    kernels = [np.asarray(weight.numpy()).ravel() for weight in kernel_variables(model).values()]
    step = -(-sum(kernel.size for kernel in kernels) // _SAMPLED) or 1
    values = np.concatenate([np.zeros(0), *(kernel[::step] for kernel in kernels)])
    return values[np.isfinite(values)]


def histograms(before: np.ndarray, after: np.ndarray) -> dict:
    """Return the shares of weights in bins from -`limit` to `limit`, of `before` and of `after`.

    The few weights beyond are in the outermost bins.
    """
    peaks = [np.percentile(np.abs(values), _SHOWN) for values in (before, after) if values.size]
    limit = float(max(peaks, default=0.0)) or 1.0
    return {"limit": limit, "before": _shares(before, limit), "after": _shares(after, limit)}


def _shares(values: np.ndarray, limit: float) -> list[float]:
    clipped = np.clip(values, -limit, limit)
    counts, _ = np.histogram(clipped, bins=_BINS, range=(-limit, limit))
    return [round(float(share), 6) for share in counts / max(values.size, 1)]

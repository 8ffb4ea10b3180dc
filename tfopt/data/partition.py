"""Which examples a seed sets apart."""

import numpy as np


def set_apart(
    labels: np.ndarray, classes: int, share: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return sorted indices (rest, set apart), with `share` of every class set apart.

    Every class keeps at least one example in the rest, so the part may be smaller, or empty.
    """
    shuffled = np.random.default_rng(seed).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    counts = np.bincount(labels, minlength=classes)
    firsts = np.cumsum(counts) - counts
    rank = np.arange(len(labels)) - firsts[labels[by_class]] + 1
    # The k-th of n in its class stands at k/n: cutting this order anywhere takes the same
    # share of every class, and the last of a class comes after all that aren't.
    order = by_class[np.lexsort((shuffled, rank / counts[labels[by_class]]))]
    size = min(round(share * len(labels)), len(labels) - np.count_nonzero(counts))
    return np.sort(order[size:]), np.sort(order[:size])

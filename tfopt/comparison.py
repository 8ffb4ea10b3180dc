"""Two classifiers on the same examples: whether one is better, or had luck."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import special, stats

_CONFIDENCE = 0.95


def compared(
    outputs: Sequence[np.ndarray], labels: np.ndarray, class_names: Sequence[str], most: int = 10
) -> dict[str, Any]:
    """Compare what two models gave, (n, classes) each, logits or probabilities, for `labels` (n,).

    Returns plain JSON values: `accuracy` of each as (share, least, most) of a 95% interval
    (Wilson 1927); `only_right`, how often each alone was right, and `p_value`, how likely at
    least such a difference is between equally good models (McNemar's test, exact: McNemar 1947);
    `agreement`, the share of the same class; for each of `classes` its examples and the share
    that each model got right; `not_finite`, of how many examples each gave no numbers, which counts
    as wrong; and the `most` examples on which they are furthest apart, by half
    the sum of the differences of their probabilities.
    """
    finite = np.stack([np.isfinite(output).all(-1) for output in outputs])
    outputs = [np.nan_to_num(output) for output in outputs]
    named = np.stack([output.argmax(-1) for output in outputs])
    right = (named == labels) & finite
    alone = [int((right[one] & ~right[1 - one]).sum()) for one in (0, 1)]
    first, second = (probabilities(output) for output in outputs)
    distance = np.where(finite.all(0), np.abs(first - second).sum(-1) / 2, 1.0)
    return {
        "examples": len(labels),
        "not_finite": [int((~each).sum()) for each in finite],
        "accuracy": [share(int(each.sum()), len(labels)) for each in right],
        "only_right": alone,
        "p_value": float(stats.binomtest(alone[0], sum(alone)).pvalue) if sum(alone) else 1.0,
        "agreement": float((named[0] == named[1]).mean()),
        "classes": [
            {
                "name": name,
                "examples": int((labels == index).sum()),
                "accuracy": [float(each[labels == index].mean()) for each in right],
            }
            for index, name in enumerate(class_names)
            if (labels == index).any()
        ],
        "furthest": [
            {
                "index": int(index),
                "label": class_names[int(labels[index])],
                "named": [class_names[int(each[index])] for each in named],
                "distance": float(distance[index]),
            }
            for index in np.argsort(-distance, kind="stable")[:most]
        ],
    }


def share(count: int, of: int) -> list[float]:
    """Return `count` of so many as (share, least, most) of a 95% interval (Wilson 1927)."""
    interval = stats.binomtest(count, of).proportion_ci(_CONFIDENCE, "wilson")
    return [count / of, float(interval.low), float(interval.high)]


def probabilities(outputs: np.ndarray) -> np.ndarray:
    """Return `outputs`, (n, classes), as probabilities, where they aren't ones already."""
    # In int8 each of them may be off by half a step of 1 / 256.
    sums, off = outputs.sum(-1, keepdims=True), max(0.02, outputs.shape[-1] / 512)
    if (outputs >= 0).all() and np.allclose(sums, 1, atol=off) and (sums > 0).all():
        return outputs / sums
    return special.softmax(outputs, axis=-1)

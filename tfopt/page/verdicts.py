"""What its answers say of an artifact: which classes it confuses, if it is as sure as right."""

import numpy as np

from tfopt.answers import Answers
from tfopt.comparison import probabilities

_BINS = 15  # as Guo et al. 2017 have
_SHOWN = 8


def confusion(answers: Answers, classes: int) -> np.ndarray:
    """Return how many examples of each class, by row, were named as each class, by column."""
    pairs = answers.labels * classes + answers.logits.argmax(-1)
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


def most_confused(answers: Answers, class_names: list[str]) -> list[dict]:
    """Return the most frequent mistakes: the `true` class, the one that was `said`, and `count`."""
    named = answers.logits.argmax(-1)
    wrong = np.stack([answers.labels, named])[:, named != answers.labels]
    pairs, counts = np.unique(wrong, axis=1, return_counts=True)
    return [
        {"true": class_names[true], "said": class_names[said], "count": int(counts[place])}
        for place in np.argsort(-counts, kind="stable")[:_SHOWN]
        for true, said in [pairs[:, place].tolist()]
    ]


def reliability(answers: Answers) -> list[dict]:
    """Return the bins of confidence that have examples: `low`, `width`, `count`, and means.

    `confidence` is the mean probability of the class that was named, `accuracy` how often it was
    right.
    """
    sure, right = _sure(answers)
    place = np.minimum((sure * _BINS).astype(int), _BINS - 1)
    return [
        {
            "low": index / _BINS,
            "width": 1 / _BINS,
            "count": int((place == index).sum()),
            "confidence": float(sure[place == index].mean()),
            "accuracy": float(right[place == index].mean()),
        }
        for index in np.unique(place).tolist()
    ]


def calibration_error(bins: list[dict]) -> float:
    """Return the expected calibration error: the mean distance of confidence and accuracy."""
    total = sum(each["count"] for each in bins)
    off = sum(each["count"] * abs(each["confidence"] - each["accuracy"]) for each in bins)
    return off / total if total else 0.0


def only_wrong(reference: Answers, compressed: Answers) -> list[int]:
    """Return the examples that `compressed` alone has wrong, those it is surest of first."""
    right, (sure, compressed_right) = _right(reference), _sure(compressed)
    found = np.flatnonzero(right & ~compressed_right)
    return found[np.argsort(-sure[found], kind="stable")].tolist()


def _right(answers: Answers) -> np.ndarray:
    finite = np.isfinite(answers.logits).all(-1)
    return finite & (answers.logits.argmax(-1) == answers.labels)


def _sure(answers: Answers) -> tuple[np.ndarray, np.ndarray]:
    return probabilities(np.nan_to_num(answers.logits)).max(-1), _right(answers)

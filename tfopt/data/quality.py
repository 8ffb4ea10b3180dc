"""The gate that data pass before any training; each failure says in one sentence what to do."""

import difflib
import logging
from collections.abc import Iterable

import numpy as np

from tfopt.compat import tf
from tfopt.data.rows import chunks
from tfopt.errors import ConfigError, nearest

_LOG = logging.getLogger(__name__)
_EXACT = 2**24
_TO_INT32 = "convert them to int32"
_TO_NUMBERS = "number them, as np.unique(labels, return_inverse=True) does"


def checked(
    split: str, examples: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]
) -> tuple[np.ndarray, np.ndarray]:
    """Return examples (whole numbers or float) and labels (n,) int32, or raise ConfigError."""
    if not isinstance(examples, np.memmap):
        examples = np.asarray(examples)
    labels = np.asarray(labels)
    _check_sizes(split, examples, labels)
    labels = _checked_labels(split, labels.reshape(-1), class_names)
    if examples.dtype != np.uint8:
        _check_values(split, examples)
    return examples, labels


def _check_sizes(split: str, examples: np.ndarray, labels: np.ndarray) -> None:
    if examples.ndim < 2:
        raise ConfigError(
            f"config.data: expected examples of shape (n, ...) in the {split} split, received an "
            f"array of shape {examples.shape}; give every example at least one axis."
        )
    if len(examples) == 0:
        raise ConfigError(
            f"config.data: expected examples in the {split} split, received none; "
            f"provide some for {split}."
        )
    if labels.ndim == 2 and labels.shape[1] > 1 and len(labels) == len(examples):
        raise ConfigError(
            f"config.data: expected the number of a class for each example in the {split} split, "
            f"received labels of shape {labels.shape}; take labels.argmax(axis=1)."
        )
    if labels.shape not in ((len(examples),), (len(examples), 1)):
        raise ConfigError(
            f"config.data: expected one label for each of the {len(examples)} examples in the "
            f"{split} split, received labels of shape {labels.shape}; make them equally many."
        )


def _checked_labels(split: str, labels: np.ndarray, class_names: tuple[str, ...]) -> np.ndarray:
    if labels.dtype.kind not in "iu":
        raise ConfigError(
            f"config.data: expected whole numbers as labels in the {split} split, received "
            f"{labels.dtype}; {_TO_NUMBERS if labels.dtype.kind in 'USO' else _TO_INT32}."
        )
    classes = len(class_names)
    wrong = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(wrong):
        raise ConfigError(
            f"config.data: expected labels from 0 to {classes - 1} in the {split} split, received "
            f"{labels[wrong[0]]} at index {wrong[0]} ({len(wrong)} such labels); correct the "
            "labels or name all classes."
        )
    missing = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
    if len(missing) and split in ("train", "test"):
        names = ", ".join(repr(class_names[index]) for index in missing[:5])
        raise ConfigError(
            f"config.data: expected examples of all {classes} classes in the {split} split, "
            f"received none of {len(missing)} ({names}); add examples or leave the class out."
        )
    return labels.astype(np.int32)


def _check_values(split: str, examples: np.ndarray) -> None:
    if examples.dtype.kind not in "fiu":
        raise ConfigError(
            f"config.data: expected whole numbers or float values in the {split} split, received "
            f"{examples.dtype}; convert them to float32."
        )
    floats = examples.dtype.kind == "f"
    wanted = "finite values" if floats else f"whole numbers up to {_EXACT:,} in size"
    for start, chunk in chunks(examples):
        # A model's input is float32, which has no greater whole numbers one by one.
        fits = np.isfinite(chunk) if floats else (chunk <= _EXACT) & (chunk >= -_EXACT)
        wrong = np.argwhere(~fits)
        if len(wrong):
            value = chunk[tuple(wrong[0])]
            raise ConfigError(
                f"config.data: expected {wanted} in the {split} split, received {value} in "
                f"example {start + wrong[0][0]}; remove or repair it."
            )


def check_alike(splits: dict[str, np.ndarray]) -> None:
    """Raise ConfigError unless all splits hold examples of the same shape and type."""
    first, wanted = next(iter(splits.items()))
    for split, rows in splits.items():
        if (rows.shape[1:], rows.dtype) != (wanted.shape[1:], wanted.dtype):
            raise ConfigError(
                f"config.data: expected {wanted.dtype} examples of shape {wanted.shape[1:]} as in "
                f"the {first} split, received {rows.dtype} of shape {rows.shape[1:]} in the "
                f"{split} split; make them alike."
            )


def warn_of_duplicates(train: np.ndarray, test: np.ndarray) -> None:
    """Log how many test examples stand in the training data too, by a hash of their bytes."""
    count = int(np.isin(_hashes(test), _hashes(train)).sum())
    if count:
        _LOG.warning(
            "%d of the %d test examples also stand in the training data, "
            "which makes the test accuracy look too good.",
            count,
            len(test),
        )


def _hashes(rows: np.ndarray) -> np.ndarray:
    found = np.empty(len(rows), np.uint64)
    for start, chunk in chunks(rows):
        flat = np.ascontiguousarray(chunk).reshape(len(chunk), -1).view(np.uint8)
        hashed = np.ascontiguousarray(tf.fingerprint(flat).numpy())
        found[start : start + len(chunk)] = hashed.view(np.uint64)[:, 0]
    return found


def hint(name: str, names: Iterable[str]) -> str:
    """Return the existing name that is nearest to `name`, or the first few that there are."""
    names = sorted(names)
    return nearest(name, difflib.get_close_matches(name, names) or names[:10])

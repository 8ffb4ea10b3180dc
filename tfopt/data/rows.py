"""The examples of one split: an array in memory, or an np.memmap that stays on disk."""

from collections.abc import Callable, Iterator

import numpy as np

from tfopt.compat import tf

_CHUNK_BYTES = 2**24


def per_chunk(shape: tuple[int, ...], most: int = 2**14) -> int:
    """Return how many examples of `shape` to work on at once in bounded memory."""
    return int(min(max(_CHUNK_BYTES // max(np.prod(shape), 1), 1), most))


def chunks(rows: np.ndarray, indices: np.ndarray | None = None) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (start, rows from there on) over all rows, or over those at `indices`."""
    size = per_chunk(rows.shape[1:])
    for start in range(0, len(rows) if indices is None else len(indices), size):
        here = slice(start, start + size)
        yield start, np.asarray(rows[here] if indices is None else rows[indices[here]])


def gatherer(rows: np.ndarray) -> Callable[["tf.Tensor"], "tf.Tensor"]:
    """Return the function from a batch of indices (n,) to these rows (n, ...).

    NumPy reads them, from memory and from disk alike: it is as fast as tf.gather there, and a
    tf.constant would take the memory of two further copies.
    """

    def read(indices: "tf.Tensor") -> "tf.Tensor":
        found = tf.numpy_function(
            lambda wanted: rows[wanted], [indices], rows.dtype, stateful=False
        )
        return tf.ensure_shape(found, [indices.shape[0], *rows.shape[1:]])

    return read

"""How long training waits for its data."""

import time
from typing import Any

from tfopt.compat import tf


class Waits:
    """The seconds from asking a stream for a batch to having it, summed up.

    Where the strategy asks ahead of the replicas (several devices on one host, TPU), some of it
    passes while they compute: what is counted is the most that they may have waited.
    """

    def __init__(self) -> None:
        self._seconds = 0.0
        self._asked = 0.0

    def watched(self, stream: "tf.data.Dataset") -> "tf.data.Dataset":
        """Return `stream`, with the time that each of its batches is waited for counted."""
        # A zip asks its parts one after another.
        before = _ticking(self._ask)
        batches = tf.data.Dataset.zip((before, stream, _ticking(self._have)))
        return batches.map(lambda _, batch, __: batch)

    def take(self) -> float:
        """Return the seconds since the last call."""
        seconds, self._seconds = self._seconds, 0.0
        return seconds

    def _ask(self, number: Any) -> Any:
        self._asked = time.perf_counter()
        return number

    def _have(self, number: Any) -> Any:
        self._seconds += time.perf_counter() - self._asked
        return number


def _ticking(tick: Any) -> "tf.data.Dataset":
    return tf.data.Dataset.counter().map(
        lambda number: tf.ensure_shape(tf.numpy_function(tick, [number], tf.int64), [])
    )

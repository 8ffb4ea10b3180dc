"""How long training waits for its data."""

import threading
import time
from typing import Any

from tfopt.compat import tf


class Waits:
    """The seconds from asking a stream for a batch to having it, summed up.

    Where the strategy asks ahead of the replicas (several devices on one host, TPU), some of it
    passes while they compute: what is counted is the most that they may have waited. Of a stream
    of which each of `copies` devices has its own, it is their mean.
    """

    def __init__(self, copies: int = 1) -> None:
        self._copies = copies
        self._lock = threading.Lock()
        self._seconds, self._open = 0.0, 0

    def watched(self, stream: "tf.data.Dataset") -> "tf.data.Dataset":
        """Return `stream`, with the time that each of its batches is waited for counted."""
        # What an earlier one was asked for when it ended never comes.
        self._seconds, self._open = 0.0, 0
        # A zip asks its parts one after another.
        before = _ticking(self._ask)
        batches = tf.data.Dataset.zip((before, stream, _ticking(self._have)))
        return batches.map(lambda _, batch, __: batch)

    def take(self) -> float:
        """Return the seconds since the last call."""
        with self._lock:
            now = time.perf_counter()
            seconds = self._seconds + self._open * now
            self._seconds = -self._open * now
        return seconds / self._copies

    def _ask(self, number: Any) -> Any:
        return self._count(number, 1)

    def _have(self, number: Any) -> Any:
        return self._count(number, -1)

    def _count(self, number: Any, asked: int) -> Any:
        """Move the sum by the time that it is, which needs no telling of who asked."""
        with self._lock:
            self._seconds -= asked * time.perf_counter()
            self._open += asked
        return number


def _ticking(tick: Any) -> "tf.data.Dataset":
    return tf.data.Dataset.counter().map(
        lambda number: tf.ensure_shape(tf.numpy_function(tick, [number], tf.int64), [])
    )

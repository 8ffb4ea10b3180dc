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
        self._copies, self._clock = copies, _Clock()

    def watched(self, stream: "tf.data.Dataset") -> "tf.data.Dataset":
        """Return `stream`, with the time that each of its batches is waited for counted."""
        # Anew, since what an earlier stream was asked for when it ended may come late or never.
        self._clock = _Clock()
        # A zip asks its parts one after another.
        before, after = _ticking(self._clock.ask), _ticking(self._clock.have)
        batches = tf.data.Dataset.zip((before, stream, after))
        return batches.map(lambda _, batch, __: batch)

    def take(self) -> float:
        """Return the seconds since the last call."""
        return self._clock.take() / self._copies


class _Clock:
    """The sum of the times between asking and having, of whoever asks in whatever order."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seconds, self._asked = 0.0, 0

    def ask(self, number: Any) -> Any:
        return self._count(number, 1)

    def have(self, number: Any) -> Any:
        return self._count(number, -1)

    def _count(self, number: Any, asked: int) -> Any:
        # All times of having less all times of asking: no need to tell who asked.
        with self._lock:
            self._seconds -= asked * time.perf_counter()
            self._asked += asked
        return number

    def take(self) -> float:
        with self._lock:
            passed = self._asked * time.perf_counter()
            seconds, self._seconds = self._seconds + passed, -passed
        return seconds


def _ticking(tick: Any) -> "tf.data.Dataset":
    return tf.data.Dataset.counter().map(
        lambda number: tf.ensure_shape(tf.numpy_function(tick, [number], tf.int64), [])
    )

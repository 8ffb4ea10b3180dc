"""What TensorFlow's C++ says on stderr while it loads, before anyone can tell it to be silent.

TF_CPP_MIN_LOG_LEVEL counts from the moment when TensorFlow has set its logging up, and these lines
are written before, by the libraries' static initialisers.
"""

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Iterator

# absl's severity I, and what absl says of being asked too early; not W, E or F.
_CHATTER = re.compile(rb"I\d{4} \d\d:|WARNING: All log messages before absl::InitializeLog")


@contextlib.contextmanager
def left_out() -> Iterator[None]:
    """Take the lines that are information only out of what this process writes to stderr.

    A child passes the others on, at once: where loading ends in a crash, they are what is left of
    it. It is forked, which a process of several threads can't be.
    """
    nobody_hears = sys.stderr is None  # it is closed
    if nobody_hears or not hasattr(os, "fork") or threading.active_count() > 1:
        yield
        return
    sys.stderr.flush()
    there = os.dup(2)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        _pass_on(reading, there)
    os.close(reading)
    os.dup2(writing, 2)
    os.close(writing)
    try:
        yield
    finally:
        sys.stderr.flush()
        os.dup2(there, 2)
        os.close(there)
        os.waitpid(child, 0)


def _pass_on(reading: int, there: int) -> None:
    """Copy lines from `reading` to `there` until nobody writes any more, and end this process."""
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)  # what the parent says of it shall be heard
        with open(reading, "rb", buffering=0) as stream:
            for line in stream:
                if not _CHATTER.match(line):
                    os.write(there, line)
    finally:
        os._exit(0)

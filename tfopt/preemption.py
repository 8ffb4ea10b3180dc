"""SIGTERM, by which a cluster or a TPU says that it is about to take the machine away."""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Any

# EX_TEMPFAIL of sysexits.h: the same again may well succeed.
EXIT_CODE = 75
_noticed, _awaited, _listening = threading.Event(), threading.Event(), threading.Event()
_sent_again: list[threading.Timer] = []


class PreemptedError(BaseException):
    """The process was told to end, and what it has done is saved.

    As KeyboardInterrupt it is no Exception, which code in the middle of something may catch.
    """


def noticed() -> bool:
    """Return whether SIGTERM has come."""
    return _noticed.is_set()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Make SIGTERM a PreemptedError: at once, or where `awaited` code is ready for it.

    Neither it nor Ctrl-C is lost where Python drops what is raised.
    """
    _noticed.clear()
    earlier, hook = signal.signal(signal.SIGTERM, _notice), sys.unraisablehook
    sys.unraisablehook = lambda dropped: _again(dropped) or hook(dropped)
    _listening.set()
    try:
        yield
        for timer in _sent_again:
            timer.join()  # what it sends comes here
    finally:
        _listening.clear()
        while _sent_again:
            _sent_again.pop().cancel()
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, earlier)


def listen_again() -> None:
    """Take SIGTERM back from TensorFlow, whose service for several hosts takes it for itself."""
    if _listening.is_set():
        signal.signal(signal.SIGTERM, _notice)


@contextlib.contextmanager
def awaited() -> Iterator[None]:
    """Let the code within look at `noticed` itself, so that it can save what it has first."""
    _awaited.set()
    try:
        yield
    finally:
        _awaited.clear()
    if noticed():
        raise PreemptedError


def _notice(number: int, frame: FrameType | None) -> None:
    del number, frame
    _noticed.set()
    if not _awaited.is_set():
        raise PreemptedError


def _again(dropped: Any) -> bool:
    """Send the signal that `dropped` was raised for once more; return whether it was one.

    Python drops exceptions in callbacks of the garbage collector, such as JAX's, and in
    destructors. By a thread: a signal that is sent here would be raised here, and dropped.
    """
    signals = {KeyboardInterrupt: signal.SIGINT, PreemptedError: signal.SIGTERM}
    number = signals.get(dropped.exc_type)
    if number is not None:
        _sent_again.append(threading.Timer(0.01, os.kill, (os.getpid(), number)))
        _sent_again[-1].start()
    return number is not None

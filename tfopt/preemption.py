"""SIGTERM, by which a cluster or a TPU says that it is about to take the machine away."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

# EX_TEMPFAIL of sysexits.h: the same again may well succeed.
EXIT_CODE = 75
_noticed, _awaited, _listening = threading.Event(), threading.Event(), threading.Event()


class PreemptedError(BaseException):
    """The process was told to end, and what it has done is saved.

    As KeyboardInterrupt it is no Exception, which code in the middle of something may catch.
    """


def noticed() -> bool:
    """Return whether SIGTERM has come."""
    return _noticed.is_set()


@contextlib.contextmanager
def listening() -> Iterator[None]:
    """Make SIGTERM a PreemptedError: at once, or where `awaited` code is ready for it."""
    _noticed.clear()
    earlier = signal.signal(signal.SIGTERM, _notice)
    _listening.set()
    try:
        yield
    finally:
        _listening.clear()
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

"""A signal ends what listens to it, wherever it arrives."""

import gc
import os
import signal
import time

import pytest

from tfopt import preemption

ENDS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: preemption.PreemptedError}


@pytest.fixture(autouse=True)
def interrupted_by_default():
    """Let SIGINT be what it is in a terminal: a shell's background jobs ignore it."""
    earlier = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, earlier)


def dropped(sign):
    """Get the signal where Python drops what it raises."""

    def callback(phase, info):
        gc.callbacks.remove(callback)
        os.kill(os.getpid(), sign)

    gc.callbacks.append(callback)
    gc.collect()


@pytest.mark.parametrize("after", [0, 10])
@pytest.mark.parametrize("sign", ENDS)
def test_a_signal_in_a_callback_of_the_garbage_collector_is_not_lost(sign, after):
    with pytest.raises(ENDS[sign]), preemption.listening():
        dropped(sign)
        time.sleep(after)


def test_it_comes_to_nobody_else_after_an_error():
    came = []
    earlier = signal.signal(signal.SIGTERM, lambda *_: came.append(1))
    try:
        with pytest.raises(ValueError, match="broken"), preemption.listening():
            dropped(signal.SIGTERM)
            raise ValueError("broken")
        time.sleep(0.1)
    finally:
        signal.signal(signal.SIGTERM, earlier)
    assert not came


def test_what_else_is_dropped_is_said(monkeypatch):
    said = []
    monkeypatch.setattr("sys.unraisablehook", said.append)

    class Broken:
        def __del__(self):
            raise ValueError("broken")

    with preemption.listening():
        Broken()
    assert [str(dropped.exc_value) for dropped in said] == ["broken"]

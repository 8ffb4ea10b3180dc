"""A signal ends what listens to it, wherever it arrives."""

import gc
import os
import signal
import time

import pytest

from tfopt import preemption

ENDS = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: preemption.PreemptedError}


@pytest.mark.parametrize("sign", ENDS)
def test_a_signal_in_a_callback_of_the_garbage_collector_is_not_lost(sign):
    def callback(phase, info):
        gc.callbacks.remove(callback)
        os.kill(os.getpid(), sign)

    with preemption.listening(), pytest.raises(ENDS[sign]):
        gc.callbacks.append(callback)
        gc.collect()  # in which Python drops what the signal raises
        time.sleep(10)


def test_what_else_is_dropped_is_said(monkeypatch):
    said = []
    monkeypatch.setattr("sys.unraisablehook", said.append)

    class Broken:
        def __del__(self):
            raise ValueError("broken")

    with preemption.listening():
        Broken()
    assert [str(dropped.exc_value) for dropped in said] == ["broken"]

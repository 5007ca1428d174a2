from __future__ import annotations

import os
import signal

from prototide.service.stopping import Stopping
from tests.support.stream import until


def test_nobody_asked() -> None:
    stopping = Stopping(grace_seconds=0)
    assert not stopping.is_requested()
    assert not stopping.is_overdue()


def test_asked_there_is_time_until_the_grace_is_over() -> None:
    stopping = Stopping(grace_seconds=1000)
    stopping.request()
    stopping.request()
    assert stopping.is_requested()
    assert not stopping.is_overdue()
    short = Stopping(grace_seconds=0.001)
    short.request()
    until(short.is_overdue)


def test_a_signal_asks() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        for number in before:
            stopping = Stopping(grace_seconds=1000)
            stopping.on_signals()
            os.kill(os.getpid(), number)
            until(stopping.is_requested)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""Being asked to stop: by SIGTERM, by Ctrl-C, or by the code that runs the service."""

from __future__ import annotations

import signal
import time


class Stopping:
    """Whether to stop, and whether the time to do it in good order is over."""

    def __init__(self, grace_seconds: float) -> None:
        self._grace_seconds = grace_seconds
        self._asked_at: float | None = None

    def request(self) -> None:
        """Asks to stop; asking again changes nothing."""
        if self._asked_at is None:
            self._asked_at = time.monotonic()

    def on_signals(self) -> None:
        """SIGTERM and SIGINT ask to stop; in the main thread only."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.request())

    def is_requested(self) -> bool:
        """Whether somebody asked."""
        return self._asked_at is not None

    def is_overdue(self) -> bool:
        """Whether that was longer ago than the grace period."""
        return self.seconds_left < 0

    @property
    def seconds_left(self) -> float:
        """Of the grace period; all of it before anybody asked."""
        return self._grace_seconds - (0.0 if self._asked_at is None else time.monotonic() - self._asked_at)

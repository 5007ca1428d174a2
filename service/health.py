"""Whether the process is alive and the service ready: plain state, no HTTP; the loop writes it, requests read it.

Alive: the loop turned within its deadline; a process that is not is best killed. Ready: nobody has a reason against
it; a service that is not, such as while brokers are away, goes on by itself.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable

# Above the longest honest turn of the loop: a large record on a large model, numba's first compilation.
LOOP_DEADLINE_SECONDS = 120.0


class Heartbeat:
    """Tells whether the loop still turns. `clock` gives seconds and never goes back."""

    def __init__(
        self, deadline_seconds: float = LOOP_DEADLINE_SECONDS, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._deadline = deadline_seconds
        self._clock = clock
        self._touched, self._longer = clock(), 0.0

    def touch(self, longer_seconds: float = 0.0) -> None:
        """The loop turned; its next turn may take so much longer than others."""
        self._touched, self._longer = self._clock(), longer_seconds

    @property
    def age_seconds(self) -> float:
        """Since the loop turned last."""
        return self._clock() - self._touched

    @property
    def alive(self) -> bool:
        """Whether the loop turned within its deadline."""
        return self.age_seconds <= self._deadline + self._longer


class Readiness:
    """Reasons against being ready, one for each part of the service that has one."""

    def __init__(self, reasons: Iterable[tuple[str, str]] = ()) -> None:
        self._lock = threading.Lock()
        self._reasons = dict(reasons)

    def set(self, part: str, reason: str | None) -> None:
        """`part` has this reason against being ready, or none."""
        with self._lock:
            if reason is None:
                self._reasons.pop(part, None)
            else:
                self._reasons[part] = reason

    @property
    def reasons(self) -> list[str]:
        """One line for each part that is not ready."""
        with self._lock:
            return [f"{part}: {reason}" for part, reason in self._reasons.items()]

    @property
    def ready(self) -> bool:
        """Whether nobody has a reason against it."""
        return not self._reasons


class DeadLetterStorm:
    """Tells when more than `max_ratio` of the last `window` records became dead letters.

    Counts whole steps: the fewest newest ones that hold `window` records. Records not yet seen count as good, so that
    one bad first record is no storm.
    """

    def __init__(self, max_ratio: float, window: int) -> None:
        self._max_ratio = max_ratio
        self._window = window
        self._steps: deque[tuple[int, int]] = deque()
        self._records = 0
        self._dead = 0

    def update(self, records: int, dead_letters: int) -> str | None:
        """Takes a step's counts; returns the reason against being ready, or None."""
        self._steps.append((records, dead_letters))
        self._records += records
        self._dead += dead_letters
        while self._records - self._steps[0][0] >= self._window:
            old_records, old_dead = self._steps.popleft()
            self._records -= old_records
            self._dead -= old_dead
        counted = max(self._records, self._window)
        if self._dead > self._max_ratio * counted:
            return (
                f"{self._dead} of the last {counted} records are dead letters "
                f"(dead_letters.max_ratio = {self._max_ratio:g}): `prototide tail dead-letters` says why"
            )
        return None

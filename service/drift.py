"""Watches the prequential errors for drift: detectors as river has them, apart from the model, which they never change.

A detector alarms when errors became more frequent. That they became rarer, as they do while a model learns, is no
alarm. A second, more sensitive instance of each detector warns before it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN

from prototide.core.compiling import kernel

log = logging.getLogger(__name__)

DetectorName = Literal["adwin", "page_hinkley"]


class RiseDetector(Protocol):
    """Tells the rows at which errors became more frequent."""

    def restart(self) -> None:
        """Forgets every row."""

    def update(self, errors: NDArray[np.bool_]) -> list[int]:
        """Takes errors, oldest first; returns the indices at which they had become more frequent."""


class Adwin:
    """river's ADWIN, which tells falls, too: what it kept of its window is compared with all it had seen."""

    def __init__(self, delta: float) -> None:
        self._delta = delta
        self.restart()

    def restart(self) -> None:
        """Forgets every row."""
        self._detector: Any = ADWIN(delta=self._delta)  # type: ignore[no-untyped-call]
        self._rows = self._wrong = 0

    def update(self, errors: NDArray[np.bool_]) -> list[int]:
        """Takes errors, oldest first; returns the indices at which they had become more frequent."""
        rises, start = [], 0
        detector, update = self._detector, self._detector.update
        for index, error in enumerate(errors.astype(np.int64).tolist()):
            update(error)
            if detector.drift_detected:
                self._count(errors[start : index + 1])
                if detector.estimation > self._wrong / self._rows:
                    rises.append(index)
                # river starts afresh with the next value, too
                self._rows = self._wrong = 0
                start = index + 1
        self._count(errors[start:])
        return rises

    def _count(self, errors: NDArray[np.bool_]) -> None:
        self._rows += errors.size
        self._wrong += int(np.count_nonzero(errors))


class PageHinkley:
    """The one-sided test of Page and Hinkley as river has it (``mode="up"``, its other defaults), compiled.

    E. S. Page, Continuous Inspection Schemes, Biometrika 41 (1954).
    """

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold
        self._state = np.zeros(4)
        self.restart()

    def restart(self) -> None:
        """Forgets every row."""
        self._state[:] = _FRESH

    def update(self, errors: NDArray[np.bool_]) -> list[int]:
        """Takes errors, oldest first; returns the indices at which they had become more frequent."""
        rises: list[int] = _page_hinkley(np.ascontiguousarray(errors), self._threshold, self._state).tolist()
        return rises


_FRESH = np.array([0.0, 0.0, 0.0, np.inf])  # rows, mean, sum of what is above it, that sum's least value
_FORGET, _TOLERATED, _LEAST_ROWS = 1 - 0.0001, 0.005, 30


@kernel()
def _page_hinkley(errors: NDArray[np.bool_], threshold: float, state: NDArray[np.float64]) -> NDArray[np.int64]:
    found, count = np.empty(errors.size, np.int64), 0
    rows, mean, total, least = state
    for i in range(errors.size):
        value = 1.0 if errors[i] else 0.0
        rows += 1.0
        mean += (1.0 / rows) * (value - mean)
        total = _FORGET * total + (value - mean) - _TOLERATED
        least = min(least, total)
        if rows >= _LEAST_ROWS and total - least > threshold:
            found[count] = i
            count += 1
            rows, mean, total, least = 0.0, 0.0, 0.0, np.inf
    state[0], state[1], state[2], state[3] = rows, mean, total, least
    return found[:count]


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How to make the alarming and the warning instance of a detector."""

    alarm: Callable[[], RiseDetector]
    warning: Callable[[], RiseDetector]


# On errors without drift (Bernoulli, rates .05 to .5) the alarms are false about once in 100,000 rows (Page-Hinkley)
# or less (ADWIN); a rate that rises by .1 alarms after some 1,200 and 500 rows, and warns after half as many.
SENSITIVITIES: Mapping[DetectorName, Sensitivity] = {
    "adwin": Sensitivity(alarm=lambda: Adwin(delta=0.002), warning=lambda: Adwin(delta=0.05)),
    "page_hinkley": Sensitivity(
        alarm=lambda: PageHinkley(threshold=100.0), warning=lambda: PageHinkley(threshold=50.0)
    ),
}


@dataclass(frozen=True, slots=True)
class DriftEvent:
    """A detector changed its mind."""

    detector: DetectorName
    kind: Literal["warning", "drift"]
    row: int  # scored rows since the start, this one included


class DriftMonitor:
    """The chosen detectors on one stream of prequential errors.

    A warning lasts until the alarm, or until `window` scored rows have passed without another one.
    """

    def __init__(self, detectors: Sequence[DetectorName], window: int) -> None:
        self._alarms = {name: SENSITIVITIES[name].alarm() for name in detectors}
        self._warnings = {name: SENSITIVITIES[name].warning() for name in detectors}
        self._warned_at: dict[DetectorName, int] = {}
        self._window = window
        self._rows = 0
        self.update(np.zeros(0, np.bool_))  # compiles, now rather than at the first step

    @property
    def warnings(self) -> dict[str, bool]:
        """Which detectors warn now."""
        return {name: name in self._warned_at for name in self._alarms}

    def update(self, errors: NDArray[np.bool_]) -> list[DriftEvent]:
        """Takes the errors of scored rows (n,), oldest first; returns what the detectors said, in order of rows."""
        events = [event for name in self._alarms for event in self._updated(name, errors)]
        self._rows += errors.size
        events.sort(key=lambda event: event.row)
        for event in events:
            _tell(event)
        return events

    def _updated(self, name: DetectorName, errors: NDArray[np.bool_]) -> list[DriftEvent]:
        events: list[DriftEvent] = []
        start = 0
        for alarm in self._alarms[name].update(errors):
            events += self._warn(name, errors, start, alarm + 1)
            events.append(DriftEvent(name, "drift", self._rows + alarm + 1))
            self._warned_at.pop(name, None)
            self._warnings[name].restart()
            start = alarm + 1
        events += self._warn(name, errors, start, errors.size)
        self._expire(name, self._rows + errors.size)
        return events

    def _warn(self, name: DetectorName, errors: NDArray[np.bool_], start: int, stop: int) -> list[DriftEvent]:
        events = []
        for index in self._warnings[name].update(errors[start:stop]):
            row = self._rows + start + index + 1
            self._expire(name, row)
            if name not in self._warned_at:
                events.append(DriftEvent(name, "warning", row))
            self._warned_at[name] = row
        return events

    def _expire(self, name: DetectorName, row: int) -> None:
        if row - self._warned_at.get(name, row) > self._window:
            del self._warned_at[name]


def _tell(event: DriftEvent) -> None:
    level = logging.WARNING if event.kind == "drift" else logging.INFO
    fields = {"detector": event.detector, "kind": event.kind, "row": event.row}
    log.log(level, "%s: errors became more frequent (%s)", event.kind, event.detector, extra=fields)

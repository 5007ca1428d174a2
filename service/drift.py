"""Watches the prequential errors for drift: river's detectors, told apart from the model, which they never change.

A detector alarms when errors became more frequent. That they became rarer, as they do while a model learns, is no
alarm. A second, more sensitive instance of each detector warns before it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from river.drift import ADWIN, PageHinkley

log = logging.getLogger(__name__)

DetectorName = Literal["adwin", "page_hinkley"]


class ChangeDetector(Protocol):
    """What river's detectors have in common."""

    @property
    def drift_detected(self) -> bool:
        """Whether the last value revealed a change."""

    def update(self, x: int) -> None:
        """Takes one value."""


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """How to make the alarming and the warning instance of a detector."""

    alarm: Callable[[], ChangeDetector]
    warning: Callable[[], ChangeDetector]


def _adwin(delta: float) -> ADWIN:
    return ADWIN(delta=delta)  # type: ignore[no-untyped-call]


# On errors without drift (Bernoulli, rates .05 to .5) the alarms are false about once in 100,000 rows (Page-Hinkley)
# or less (ADWIN); a rate that rises by .1 alarms after some 1,200 and 500 rows, and warns after half as many.
SENSITIVITIES: Mapping[DetectorName, Sensitivity] = {
    "adwin": Sensitivity(alarm=lambda: _adwin(delta=0.002), warning=lambda: _adwin(delta=0.05)),
    "page_hinkley": Sensitivity(
        alarm=lambda: PageHinkley(threshold=100.0, mode="up"),
        warning=lambda: PageHinkley(threshold=50.0, mode="up"),
    ),
}


@dataclass(frozen=True, slots=True)
class DriftEvent:
    """A detector changed its mind."""

    detector: DetectorName
    kind: Literal["warning", "drift"]
    row: int  # scored rows since the start, this one included


class RiseDetector:
    """One river detector on a stream of errors; tells the rows at which errors became more frequent."""

    def __init__(self, make: Callable[[], ChangeDetector]) -> None:
        self._make = make
        self.restart()

    def restart(self) -> None:
        """Forgets every row."""
        self._detector = self._make()
        self._rows = 0
        self._wrong = 0

    def update(self, errors: Sequence[int]) -> list[int]:
        """Takes errors, 0 or 1 each, oldest first; returns the indices at which they had become more frequent."""
        rises = []
        start = 0
        update = self._detector.update
        for index, error in enumerate(errors):
            update(error)
            if self._detector.drift_detected:
                self._count(errors[start : index + 1])
                if self._rose():
                    rises.append(index)
                # river starts afresh with the next value, too
                self._rows = self._wrong = 0
                start = index + 1
        self._count(errors[start:])
        return rises

    def _count(self, errors: Sequence[int]) -> None:
        self._rows += len(errors)
        self._wrong += sum(errors)

    def _rose(self) -> bool:
        """ADWIN tells both directions: what it kept is compared with all it had seen. Page-Hinkley tells one."""
        if isinstance(self._detector, ADWIN):
            return bool(self._detector.estimation > self._wrong / self._rows)
        return True


class DriftMonitor:
    """The chosen detectors on one stream of prequential errors.

    A warning lasts until the alarm, or until `window` scored rows have passed without another one.
    """

    def __init__(self, detectors: Sequence[DetectorName], window: int) -> None:
        self._alarms = {name: RiseDetector(SENSITIVITIES[name].alarm) for name in detectors}
        self._warnings = {name: RiseDetector(SENSITIVITIES[name].warning) for name in detectors}
        self._warned_at: dict[DetectorName, int] = {}
        self._window = window
        self._rows = 0

    @property
    def warnings(self) -> dict[str, bool]:
        """Which detectors warn now."""
        return {name: name in self._warned_at for name in self._alarms}

    def update(self, errors: NDArray[np.bool_]) -> list[DriftEvent]:
        """Takes the errors of scored rows (n,), oldest first; returns what the detectors said, in order of rows."""
        values = errors.astype(np.int64).tolist()
        events = [event for name in self._alarms for event in self._updated(name, values)]
        self._rows += len(values)
        events.sort(key=lambda event: event.row)
        for event in events:
            _tell(event)
        return events

    def _updated(self, name: DetectorName, values: Sequence[int]) -> list[DriftEvent]:
        events: list[DriftEvent] = []
        start = 0
        for alarm in self._alarms[name].update(values):
            events += self._warn(name, values, start, alarm + 1)
            events.append(DriftEvent(name, "drift", self._rows + alarm + 1))
            self._warned_at.pop(name, None)
            self._warnings[name].restart()
            start = alarm + 1
        events += self._warn(name, values, start, len(values))
        self._expire(name, self._rows + len(values))
        return events

    def _warn(self, name: DetectorName, values: Sequence[int], start: int, stop: int) -> list[DriftEvent]:
        events = []
        for index in self._warnings[name].update(values[start:stop]):
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

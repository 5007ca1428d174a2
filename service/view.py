"""What the demo shows while the service runs: numbers gathered from `StepStats`, drawn by rich or as plain lines.

`Progress` holds the state (the service loop writes it, the terminal's refresh reads it); `draw`, `plain_line` and
`summary` are pure functions of a `Snapshot`.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from prototide.service.prequential import PrequentialWindow
from prototide.service.steps import StepStats

THROUGHPUT_SECONDS = 5.0  # rows/s shown is the mean over that long
SPARKLINE_SECONDS = 1.0  # between two points
SPARKLINE_POINTS = 60
EVENTS_SHOWN = 6
WARMING_UP = "warming up: the learner is compiled, the first time for one to three minutes"
BARS = "▁▂▃▄▅▆▇█"


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything the view shows at one moment."""

    seconds: float  # since the first step; 0 before it
    warming_up: float | None  # seconds so far while no step has finished, then None
    records: int
    rows: int
    rows_unknown: int
    rows_per_second: float  # over the last `THROUGHPUT_SECONDS`
    mean_rows_per_second: float  # after the first step
    accuracy: float | None  # prequential, over the last `window` scored rows; None before the first
    overall_accuracy: float | None  # prequential, over all scored rows
    window: int
    accuracy_history: Sequence[float]
    classes: int
    centroids: int
    shift: float
    model_bytes: int
    lag: int
    latency_p50_seconds: float | None  # of the last step's records
    drift_alarms: int
    dead_letters: int
    events: Sequence[str]


class Progress:
    """Gathers steps and events; safe to read from another thread. `clock` gives seconds and never goes back."""

    def __init__(self, clock: Callable[[], float], window: int = 1000) -> None:
        self._lock = threading.Lock()
        self._clock = clock
        self._created = clock()
        self._first_step: tuple[float, int] | None = None  # (when it ended, its rows)
        self._last: StepStats | None = None
        self._model: Mapping[str, float] = {}
        self._records = self._rows = self._unknown = self._dead_letters = self._drift_alarms = 0
        self._scored = self._correct = 0
        self._window_rows = window
        self._window = PrequentialWindow(window)
        self._recent_rows: deque[tuple[float, int]] = deque()  # (when, rows so far)
        self._history: deque[float] = deque(maxlen=SPARKLINE_POINTS)
        self._next_point = 0.0
        self._events: deque[str] = deque(maxlen=EVENTS_SHOWN)

    def observe(self, stats: StepStats) -> None:
        """Takes in what one step did."""
        with self._lock:
            now = self._clock()
            self._last = stats
            self._model = stats.model or self._model  # a step of dead letters alone has none
            self._records += stats.records
            self._rows += stats.rows
            if self._first_step is None:
                self._first_step = (now, self._rows)  # it compiles: its rows say nothing of speed
            self._unknown += stats.rows_unknown
            self._dead_letters += sum(stats.dead_letters.values())
            self._scored += len(stats.errors)
            self._correct += len(stats.errors) - int(np.count_nonzero(stats.errors))
            self._window.update(stats.errors)
            self._recent_rows.append((now, self._rows))
            while self._recent_rows[0][0] < now - THROUGHPUT_SECONDS:
                self._recent_rows.popleft()
            if now >= self._next_point and self._scored:
                self._history.append(self._window.accuracy)
                self._next_point = now + SPARKLINE_SECONDS

    def drift_alarm(self, text: str) -> None:
        """Counts an alarm of a drift detector and shows it among the events."""
        with self._lock:
            self._drift_alarms += 1
            self._add_event(text)

    def event(self, text: str) -> None:
        """Shows a line among the events."""
        with self._lock:
            self._add_event(text)

    def snapshot(self) -> Snapshot:
        """The present state."""
        with self._lock:
            now = self._clock()
            started, first_rows = self._first_step or (now, 0)
            seconds = now - started
            last = self._last
            latency = None if last is None or not len(last.latency_seconds) else float(np.median(last.latency_seconds))
            return Snapshot(
                seconds=seconds,
                warming_up=now - self._created if last is None else None,
                records=self._records,
                rows=self._rows,
                rows_unknown=self._unknown,
                rows_per_second=self._recent_throughput(now),
                mean_rows_per_second=(self._rows - first_rows) / seconds if seconds > 0 else 0.0,
                accuracy=self._window.accuracy if self._scored else None,
                overall_accuracy=self._correct / self._scored if self._scored else None,
                window=self._window_rows,
                accuracy_history=tuple(self._history),
                classes=int(self._model.get("classes", 0)),
                centroids=int(self._model.get("active_centroids", 0)),
                shift=float(self._model.get("shift", 0.0)),
                model_bytes=0 if last is None else last.model_bytes,
                lag=0 if last is None else sum(last.lag.values()),
                latency_p50_seconds=latency,
                drift_alarms=self._drift_alarms,
                dead_letters=self._dead_letters,
                events=tuple(self._events),
            )

    def _add_event(self, text: str) -> None:
        started, _ = self._first_step or (self._clock(), 0)
        self._events.append(f"{self._clock() - started:6.0f} s  {text}")

    def _recent_throughput(self, now: float) -> float:
        for when, rows_then in self._recent_rows:
            if now - THROUGHPUT_SECONDS <= when < now:
                return (self._rows - rows_then) / (now - when)
        return 0.0


def draw(snapshot: Snapshot, title: str, subtitle: str) -> RenderableType:
    """The live view, a panel about 12 lines high."""
    if snapshot.warming_up is not None:
        body = Text(f"{WARMING_UP} ({snapshot.warming_up:.0f} s)", style="yellow")
        return Panel(body, title=title, subtitle=subtitle, border_style="cyan")
    figures = Table.grid(padding=(0, 2), expand=True)
    for _ in range(3):
        figures.add_column(style="dim", no_wrap=True)
        figures.add_column(justify="right", no_wrap=True)
    figures.add_row(
        "rows/s", f"{snapshot.rows_per_second:,.0f}", "rows", f"{snapshot.rows:,}", "records", f"{snapshot.records:,}"
    )
    figures.add_row(
        "classes", f"{snapshot.classes:,}",
        "centroids", f"{snapshot.centroids:,}",
        "model", f"{snapshot.model_bytes / 2**20:,.1f} MiB",
    )  # fmt: skip
    figures.add_row(
        "shift", f"{snapshot.shift:.4f}",
        "lag", f"{snapshot.lag:,} records",
        "latency p50", _milliseconds(snapshot.latency_p50_seconds),
    )  # fmt: skip
    figures.add_row(
        "drift alarms", Text(f"{snapshot.drift_alarms}", style="bold red" if snapshot.drift_alarms else ""),
        "dead letters", f"{snapshot.dead_letters:,}",
        "running", f"{snapshot.seconds:,.0f} s",
    )  # fmt: skip
    accuracy = Text.assemble(
        ("prequential accuracy ", "dim"),
        (_percent(snapshot.accuracy), "bold green"),
        (f"  last {snapshot.window:,} rows   ", "dim"),
        (sparkline(snapshot.accuracy_history), "green"),
    )
    events = Text("\n".join(snapshot.events) or "no events yet", style="dim")
    return Panel(Group(accuracy, Text(), figures, Text(), events), title=title, subtitle=subtitle, border_style="cyan")


def plain_line(snapshot: Snapshot) -> str:
    """One line for an output that is not a terminal."""
    if snapshot.warming_up is not None:
        return WARMING_UP
    return (
        f"{snapshot.seconds:6.1f} s  {snapshot.rows_per_second:,.0f} rows/s  accuracy {_percent(snapshot.accuracy)} "
        f"(last {snapshot.window:,} rows)  classes {snapshot.classes:,}  centroids {snapshot.centroids:,}  "
        f"shift {snapshot.shift:.4f}  lag {snapshot.lag:,}  drift alarms {snapshot.drift_alarms}"
    )


def summary(snapshot: Snapshot) -> str:
    """What the whole run did, a figure a line."""
    if snapshot.warming_up is not None:
        return "stopped before the first step was done"
    figures = {
        "rows": f"{snapshot.rows:,} in {snapshot.seconds:,.1f} s, {snapshot.mean_rows_per_second:,.0f} rows/s",
        "records": f"{snapshot.records:,}",
        "accuracy": f"{_percent(snapshot.overall_accuracy)} of all rows, predicted before they were learned; "
        f"{_percent(snapshot.accuracy)} of the last {snapshot.window:,}",
        "classes": f"{snapshot.classes:,}",
        "centroids": f"{snapshot.centroids:,}",
        "drift alarms": f"{snapshot.drift_alarms}",
        "dead letters": f"{snapshot.dead_letters}",
    }
    return "\n".join(f"{name:<14}{value}" for name, value in figures.items())


def sparkline(values: Sequence[float]) -> str:
    """One bar a value, from the lowest of them to the highest; a spread under 0.05 is not blown up."""
    if not values:
        return ""
    low, high = min(values), max(values)
    height = max(high - low, 0.05)
    return "".join(BARS[min(int((value - (high - height)) / height * len(BARS)), len(BARS) - 1)] for value in values)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1000 * seconds:,.1f} ms"

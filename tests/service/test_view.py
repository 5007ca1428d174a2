"""The demo's view: what it gathers from steps, and how it draws that."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console

from prototide.service.steps import StepStats
from prototide.service.view import BARS, Progress, Snapshot, draw, plain_line, sparkline, summary


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> Progress:
    return Progress(window=10, clock=clock)


def step(*, rows: int = 100, errors: str = "", dead: int = 0, classes: int = 7) -> StepStats:
    """A step; `errors` has a character a scored row, x where the prediction was wrong."""
    return StepStats(
        number=1,
        trained=1,
        records=2,
        dead_letters={"decode": dead} if dead else {},
        rows=rows,
        rows_learned=rows,
        rows_unknown=1,
        errors=np.array([mark == "x" for mark in errors], dtype=np.bool_),
        model={"classes": classes, "active_centroids": 3 * classes, "shift": 0.0125},
        class_shift={},
        model_bytes=3 * 2**20,
        decode_seconds=0.001,
        fit_seconds=0.002,
        commit_seconds=0.003,
        step_seconds=0.006,
        latency_seconds=np.array([0.010, 0.020, 0.030]),
        lag={("train", 0): 4, ("train", 1): 5},
    )


def test_before_the_first_step_the_view_says_that_it_warms_up(progress: Progress, clock: Clock) -> None:
    clock.now += 12
    snapshot = progress.snapshot()
    assert snapshot.warming_up == 12
    assert "(12 s)" in rendered(snapshot)
    assert "warming up" in plain_line(snapshot)
    assert "before the first step" in summary(snapshot)


def test_counts_add_up_over_steps_and_gauges_are_the_last_ones(progress: Progress) -> None:
    progress.observe(step(rows=100, dead=1, classes=7))
    progress.observe(step(rows=50, classes=8))
    snapshot = progress.snapshot()
    assert (snapshot.records, snapshot.rows, snapshot.rows_unknown, snapshot.dead_letters) == (4, 150, 2, 1)
    assert (snapshot.classes, snapshot.centroids, snapshot.shift, snapshot.lag) == (8, 24, 0.0125, 9)
    assert snapshot.latency_p50_seconds == pytest.approx(0.020)


def test_a_step_of_dead_letters_alone_leaves_the_models_figures(progress: Progress) -> None:
    progress.observe(step(classes=7))
    progress.observe(dataclasses.replace(step(rows=0, dead=1), model={}))
    assert (progress.snapshot().classes, progress.snapshot().centroids) == (7, 21)


def test_accuracy_is_windowed_and_overall(progress: Progress) -> None:
    assert progress.snapshot().accuracy is None
    progress.observe(step(errors="xxxxxxxxxx"))
    progress.observe(step(errors="........x."))
    snapshot = progress.snapshot()
    assert snapshot.accuracy == pytest.approx(0.9)
    assert snapshot.overall_accuracy == pytest.approx(0.45)


def test_throughput_is_recent_and_leaves_out_the_step_that_compiles(progress: Progress, clock: Clock) -> None:
    progress.observe(step(rows=1000))
    for _ in range(10):
        clock.now += 1
        progress.observe(step(rows=50))
    assert progress.snapshot().rows_per_second == pytest.approx(50)
    assert progress.snapshot().mean_rows_per_second == pytest.approx(50)
    for _ in range(10):
        clock.now += 1
        progress.observe(step(rows=200))
    assert progress.snapshot().rows_per_second == pytest.approx(200)
    assert progress.snapshot().mean_rows_per_second == pytest.approx(125)


def test_throughput_of_a_stream_that_stopped_falls_to_zero(progress: Progress, clock: Clock) -> None:
    progress.observe(step())
    clock.now += 1
    progress.observe(step())
    clock.now += 60
    assert progress.snapshot().rows_per_second == 0


def test_accuracy_history_has_one_point_a_second_and_is_bounded(progress: Progress, clock: Clock) -> None:
    for _ in range(200):
        clock.now += 0.5
        progress.observe(step(errors=".x"))
    history = progress.snapshot().accuracy_history
    assert len(history) == 60
    assert history[-1] == pytest.approx(0.5)


def test_drift_alarms_and_events_are_shown_with_their_time_newest_last(progress: Progress, clock: Clock) -> None:
    progress.event("before the first step")
    progress.observe(step())
    clock.now += 42
    progress.drift_alarm("adwin: drift")
    snapshot = progress.snapshot()
    assert snapshot.drift_alarms == 1
    assert [event.split(" s  ") for event in snapshot.events] == [
        ["     0", "before the first step"],
        ["    42", "adwin: drift"],
    ]
    assert "42 s  adwin: drift" in rendered(snapshot)


def test_view_line_and_summary_name_every_figure(progress: Progress, clock: Clock) -> None:
    progress.observe(step(rows=1000, errors="..x"))
    clock.now += 2
    progress.observe(step(rows=5000, errors="..x", dead=3))
    snapshot = progress.snapshot()
    view = rendered(snapshot)
    for text in (
        "rows/s",
        "2,500",
        "66.7 %",
        "classes",
        "centroids",
        "21",
        "0.0125",
        "9 records",
        "20.0 ms",
        "3.0 MiB",
    ):
        assert text in view
    line = plain_line(snapshot)
    for text in ("2,500 rows/s", "accuracy 66.7 %", "classes 7", "centroids 21", "shift 0.0125", "lag 9"):
        assert text in line
    assert "\n" not in line
    end = summary(snapshot)
    for text in ("6,000 in 2.0 s, 2,500 rows/s", "66.7 % of all rows", "classes", "drift alarms", "dead letters  3"):
        assert text in end


def test_view_fits_a_narrow_terminal(progress: Progress) -> None:
    progress.observe(step(errors="..x"))
    lines = rendered(progress.snapshot(), width=80).splitlines()
    assert max(len(line) for line in lines) <= 80
    assert len(lines) <= 18


def test_sparkline_goes_from_the_lowest_bar_to_the_highest() -> None:
    assert sparkline([]) == ""
    assert sparkline([0.0, 1.0]) == BARS[0] + BARS[-1]
    assert sparkline([0.2, 0.5, 0.8])[1] in BARS[3:5]


def test_sparkline_does_not_blow_up_noise() -> None:
    assert set(sparkline([0.900, 0.905, 0.903])) <= set(BARS[-3:])


def rendered(snapshot: Snapshot, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=False)
    with console.capture() as capture:
        console.print(draw(snapshot, "prototide demo", "http://127.0.0.1:8000/metrics"))
    return capture.get()

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import river.drift
from numpy.typing import NDArray

from prototide.service.drift import DetectorName, DriftMonitor, PageHinkley

BOTH: tuple[DetectorName, ...] = ("adwin", "page_hinkley")


def errors(rate: float, rows: int, seed: int = 0) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random(rows) < rate


def test_errors_without_drift_raise_no_alarm() -> None:
    monitor = DriftMonitor(BOTH, window=1000)
    assert [event for event in monitor.update(errors(0.2, 20_000)) if event.kind == "drift"] == []


@pytest.mark.parametrize("name", BOTH)
def test_a_rise_of_errors_warns_then_alarms(name: DetectorName) -> None:
    monitor = DriftMonitor([name], window=1000)
    monitor.update(errors(0.1, 5000))
    events = monitor.update(errors(0.5, 3000, seed=1))
    assert [event.kind for event in events] == ["warning", "drift"]
    warned, alarmed = events
    assert warned.detector == alarmed.detector == name
    assert 5000 < warned.row < alarmed.row < 6000
    assert monitor.warnings == {name: False}


@pytest.mark.parametrize("name", BOTH)
def test_a_model_that_gets_better_is_no_drift(name: DetectorName) -> None:
    monitor = DriftMonitor([name], window=1000)
    learning = [errors(rate, 2000, seed) for seed, rate in enumerate((0.95, 0.6, 0.3, 0.1, 0.02))]
    assert monitor.update(np.concatenate(learning)) == []


def test_the_size_of_the_steps_changes_nothing() -> None:
    stream = np.concatenate([errors(rate, 3000, seed) for seed, rate in enumerate((0.1, 0.5, 0.1, 0.6))])
    whole = DriftMonitor(BOTH, window=500)
    cut = DriftMonitor(BOTH, window=500)
    expected = whole.update(stream)
    sizes = np.random.default_rng().integers(0, 97, 2 * len(stream))
    cuts = np.cumsum(sizes)
    events = [event for step in np.split(stream, cuts[cuts < len(stream)]) for event in cut.update(step)]
    assert sorted(events, key=str) == sorted(expected, key=str)
    assert {event.kind for event in events} == {"warning", "drift"}
    assert cut.warnings == whole.warnings


RIVERS: dict[DetectorName, Callable[[], Any]] = {
    "adwin": lambda: river.drift.ADWIN(delta=0.002),  # type: ignore[no-untyped-call]
    "page_hinkley": lambda: river.drift.PageHinkley(threshold=100.0, mode="up"),
}


@pytest.mark.parametrize("name", BOTH)
def test_alarms_are_those_of_rivers_detector(name: DetectorName) -> None:
    stream = np.concatenate([errors(0.1, 4000), errors(0.5, 4000, seed=1), errors(0.9, 4000, seed=2)])
    detector = RIVERS[name]()
    rows = []
    for row, error in enumerate(stream.tolist(), start=1):
        detector.update(error)
        if detector.drift_detected:
            rows.append(row)
    events = DriftMonitor([name], window=1000).update(stream)
    assert [event.row for event in events if event.kind == "drift"] == rows != []


@pytest.mark.parametrize("threshold", [2.0, 10.0])
def test_page_hinkley_changes_its_mind_where_rivers_does(threshold: float) -> None:
    random = np.random.default_rng()
    stream = np.concatenate([random.random(1000) < rate for rate in random.random(40)])
    reference, ours = river.drift.PageHinkley(threshold=threshold, mode="up"), PageHinkley(threshold)
    expected = []
    for row, error in enumerate(stream.tolist()):
        reference.update(error)
        if reference.drift_detected:
            expected.append(row)
    assert ours.update(stream) == expected != []


def test_a_warning_without_an_alarm_fades_after_the_window() -> None:
    monitor = DriftMonitor(["page_hinkley"], window=300)
    monitor.update(np.zeros(2000, np.bool_))
    [event] = monitor.update(np.ones(80, np.bool_))
    assert event.kind == "warning"
    monitor.update(np.zeros(200, np.bool_))
    assert monitor.warnings == {"page_hinkley": True}
    assert monitor.update(np.zeros(200, np.bool_)) == []
    assert monitor.warnings == {"page_hinkley": False}


def test_without_detectors_nothing_is_watched() -> None:
    monitor = DriftMonitor([], window=10)
    assert monitor.update(np.ones(100, np.bool_)) == []
    assert monitor.warnings == {}


def test_a_step_without_truths_is_fine() -> None:
    assert DriftMonitor(BOTH, window=10).update(np.zeros(0, np.bool_)) == []


def test_alarms_are_logged_with_detector_and_row(caplog: pytest.LogCaptureFixture) -> None:
    monitor = DriftMonitor(["adwin"], window=1000)
    with caplog.at_level(logging.INFO):
        events = monitor.update(np.concatenate([errors(0.1, 4000), errors(0.6, 1000, seed=1)]))
    told = [(record.__dict__["detector"], record.__dict__["kind"], record.__dict__["row"]) for record in caplog.records]
    assert told == [(event.detector, event.kind, event.row) for event in events] != []

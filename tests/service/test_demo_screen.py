"""The demo's screen: live in a terminal, lines elsewhere, log lines as events in both."""

from __future__ import annotations

import io
import logging
import time

import pytest
from rich.console import Console

from prototide.service import demo_feed, drift
from prototide.service.demo_screen import screen
from prototide.service.view import Progress

ADDRESS = "http://127.0.0.1:8000"


@pytest.fixture
def progress() -> Progress:
    return Progress(clock=time.monotonic)


def test_a_terminal_shows_the_live_view(progress: Progress) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with screen(console, progress, ADDRESS):
        pass
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "prototide demo" in shown
    assert "warming up" in shown
    assert f"{ADDRESS}/metrics" in shown


def test_elsewhere_there_are_lines_and_the_warm_up_is_told_once(
    progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prototide.service.demo_screen.LINE_SECONDS", 0.001)
    console = Console(file=io.StringIO(), width=100)
    with screen(console, progress, ADDRESS):
        deadline = time.monotonic() + 10
        while "warming up" not in (shown := console.file.getvalue()):  # type: ignore[attr-defined]
            assert time.monotonic() < deadline
        logging.getLogger(drift.__name__).warning("drift: here")
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.splitlines()[0] == f"metrics at {ADDRESS}/metrics"
    assert shown.count("warming up") == 1
    assert "    drift: here\n" in shown


def test_warnings_of_everybody_and_what_the_stream_and_the_detectors_say_are_events(progress: Progress) -> None:
    with screen(Console(file=io.StringIO()), progress, ADDRESS):
        logging.getLogger("prototide.service.checkpointing").info("checkpoint of step 1")
        logging.getLogger("prototide.service.checkpointing").error("checkpoint failed: %s", "disk full")
        logging.getLogger(demo_feed.__name__).info("the stream moved")
        logging.getLogger(drift.__name__).info("warning: soon", extra={"kind": "warning"})
        logging.getLogger(drift.__name__).warning("drift: now", extra={"kind": "drift"})
    snapshot = progress.snapshot()
    told = [event.split(" s  ")[1] for event in snapshot.events]
    assert told == ["checkpoint failed: disk full", "the stream moved", "warning: soon", "drift: now"]
    assert snapshot.drift_alarms == 1


def test_logging_is_afterwards_as_it_was_before(progress: Progress) -> None:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    with screen(Console(file=io.StringIO()), progress, ADDRESS):
        assert list(root.handlers) != before[0]
    assert (list(root.handlers), root.level) == before

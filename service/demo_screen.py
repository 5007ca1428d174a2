"""The demo's screen: a live view in a terminal, a line now and then elsewhere; what the service logs are its events."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from rich.console import Console, ConsoleRenderable, RichCast
from rich.live import Live

from prototide.service import demo_feed, drift
from prototide.service.view import Progress, draw, plain_line

REFRESHES_PER_SECOND = 4
LINE_SECONDS = 2.0
TOLD_AT_INFO = {demo_feed.__name__, drift.__name__}  # of other loggers only warnings are events


class EventLog(logging.Handler):
    """Turns log lines into events of the view, and counts drift alarms among them."""

    def __init__(self, progress: Progress, say: Callable[[str], None] = lambda _: None) -> None:
        """`say` is told each event at once."""
        super().__init__(logging.INFO)
        self._progress = progress
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """Shows a warning, or a line of the loggers that tell of the stream."""
        if record.levelno < logging.WARNING and record.name not in TOLD_AT_INFO:
            return
        if getattr(record, "kind", None) == "drift":
            self._progress.drift_alarm(record.getMessage())
        else:
            self._progress.event(record.getMessage())
        self._say(f"    {record.getMessage()}")


@contextmanager
def screen(console: Console, progress: Progress, address: str) -> Iterator[None]:
    """Shows `progress` while the context lasts; the process's log lines go there and nowhere else."""
    if console.is_terminal:
        with _listening(EventLog(progress)), _live(console, progress, address):
            yield
    else:
        say = partial(console.print, soft_wrap=True, markup=False)
        say(f"metrics at {address}/metrics")
        with _listening(EventLog(progress, say)), _lines(progress, say):
            yield


@contextmanager
def _listening(handler: logging.Handler) -> Iterator[None]:
    root = logging.getLogger()
    before = root.handlers, root.level
    root.handlers, root.level = [handler], logging.INFO
    try:
        yield
    finally:
        root.handlers, root.level = before


def _live(console: Console, progress: Progress, address: str) -> Live:
    def drawn() -> ConsoleRenderable | RichCast | str:
        return draw(progress.snapshot(), "prototide demo, Ctrl-C stops it", f"{address}/metrics")

    return Live(console=console, get_renderable=drawn, refresh_per_second=REFRESHES_PER_SECOND)


@contextmanager
def _lines(progress: Progress, say: Callable[[str], None]) -> Iterator[None]:
    ended = threading.Event()

    def tell() -> None:
        told = ""
        while not ended.wait(0 if not told else LINE_SECONDS):
            line = plain_line(progress.snapshot())
            if line != told:  # while it warms up there is nothing new
                say(line)
            told = line

    thread = threading.Thread(target=tell, name="demo-lines", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()

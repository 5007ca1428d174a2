"""What the commands share: settings from their options, Ctrl-C, and ending in one line."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from prototide.service.errors import ServiceError

if TYPE_CHECKING:
    from prototide.service.settings import Settings


def settings_of(config: Path | None, overrides: Sequence[str] | None, bootstrap_servers: str | None) -> Settings:
    """The effective settings; raises PersonMustAct for wrong ones."""
    from prototide.service.settings import load

    brokers = [] if bootstrap_servers is None else [f"kafka.bootstrap_servers={bootstrap_servers}"]
    return load(config, [*(overrides or []), *brokers])


@contextmanager
def ending_in_one_line() -> Iterator[None]:
    """A ServiceError becomes its one line on standard error and its exit code."""
    try:
        yield
    except ServiceError as error:
        typer.echo(f"prototide: {error}", err=True)
        raise typer.Exit(error.exit_code) from None


@contextmanager
def stopped_by_interrupt() -> Iterator[Callable[[], bool]]:
    """Gives what says whether Ctrl-C or SIGTERM asked to stop; a second Ctrl-C interrupts at once."""
    asked = threading.Event()

    def ask(_signal: int, _frame: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    before = {each: signal.signal(each, ask) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)

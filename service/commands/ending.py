"""What the commands share: settings from their options, Ctrl-C, and ending in one line."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from prototide.service.errors import RestartMayHelp, ServiceError

if TYPE_CHECKING:
    from prototide.service.settings import Settings

log = logging.getLogger(__name__)

UNEXPECTED = (
    "start again; if it persists, report it with what `--set log.level=debug` (or PROTOTIDE_LOG__LEVEL) shows before it"
)


def settings_of(config: Path | None, overrides: Sequence[str] | None, bootstrap_servers: str | None) -> Settings:
    """The effective settings; raises PersonMustAct for wrong ones."""
    from prototide.service.settings import load

    brokers = [] if bootstrap_servers is None else [f"kafka.bootstrap_servers={bootstrap_servers}"]
    return load(config, [*(overrides or []), *brokers])


@contextmanager
def ending_in_one_line() -> Iterator[None]:
    """A ServiceError becomes its one line on standard error and its exit code; so does what nobody expected."""
    try:
        yield
    except ServiceError as error:
        _end(error)
    except (typer.Exit, typer.Abort, typer.BadParameter, BrokenPipeError):
        raise  # the command line's own
    except Exception as error:
        log.debug("unexpected", exc_info=True)
        said = " ".join(str(error).split())
        _end(RestartMayHelp(f"unexpected {type(error).__name__}: {said}", UNEXPECTED))


def _end(error: ServiceError) -> NoReturn:
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

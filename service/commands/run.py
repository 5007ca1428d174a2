"""``prototide run``: the service."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prototide.service.errors import PersonMustAct

if TYPE_CHECKING:
    from prototide.service.settings import Settings


def run(
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="Brokers, host:port separated by commas; overrides kafka.bootstrap_servers.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="A setting, a.b=value; repeatable.")] = None,
    skip: Annotated[
        list[str] | None,
        typer.Option(metavar="TOPIC/PARTITION/OFFSET", help="A record that becomes a dead letter; repeatable."),
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Start a new model at start_from; the old checkpoints are renamed.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Consumes, predicts, learns and checkpoints until SIGTERM or Ctrl-C."""
    from prototide.service import failpoints, logs
    from prototide.service.commands.ending import ending_in_one_line, settings_of
    from prototide.service.stopping import Stopping
    from prototide.service.wishes import Wishes, skipped

    with ending_in_one_line():
        settings = settings_of(config, overrides, bootstrap_servers)
        wishes = Wishes(fresh, skipped(skip or [], settings.topics.train))
        if fresh and not yes:
            _ask(settings)
        logs.set_up(settings.log.format, settings.log.level)
        failpoints.arm()
        stopping = Stopping(settings.shutdown.grace_s)
        stopping.on_signals()
        from prototide.service.serving import serve  # the learner takes seconds to import: wrong settings fail first

        serve(settings, stopping, wishes=wishes)


def _ask(settings: Settings) -> None:
    if not sys.stdin.isatty():
        raise PersonMustAct("--fresh asks before it leaves a model behind, and nobody is there to answer", "add --yes")
    typer.confirm(
        f"Start a new model of {settings.kafka.group_id} at {settings.start_from}, leaving what was learned behind?",
        abort=True,
        err=True,
    )

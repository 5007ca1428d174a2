"""``prototide run``: the service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="Brokers, host:port separated by commas; overrides kafka.bootstrap_servers.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="A setting, a.b=value; repeatable.")] = None,
) -> None:
    """Consumes, predicts, learns and checkpoints until SIGTERM or Ctrl-C."""
    from prototide.service import logs
    from prototide.service.commands.ending import ending_in_one_line, settings_of
    from prototide.service.stopping import Stopping

    with ending_in_one_line():
        settings = settings_of(config, overrides, bootstrap_servers)
        logs.set_up(settings.log.format, settings.log.level)
        stopping = Stopping(settings.shutdown.grace_s)
        stopping.on_signals()
        from prototide.service.serving import serve  # the learner takes seconds to import: wrong settings fail first

        serve(settings, stopping)

"""``prototide topics``: the topics that the service needs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(name="topics", help="The topics that the service needs.", no_args_is_help=True)


@app.callback()
def topics() -> None:
    """The topics that the service needs."""


@app.command()
def create(
    partitions: Annotated[int, typer.Option(min=1, help="Partitions of each new topic.")] = 1,
    replication_factor: Annotated[int, typer.Option(min=1, help="Replicas of each new topic.")] = 1,
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="Brokers, host:port separated by commas; overrides kafka.bootstrap_servers.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="A setting, a.b=value; repeatable.")] = None,
) -> None:
    """Makes the topics that are missing; what exists stays, but for a max.message.bytes that is too small."""
    from prototide.service.commands.ending import ending_in_one_line, settings_of
    from prototide.service.topics import create_topics, wanted_topics

    with ending_in_one_line():
        settings = settings_of(config, overrides, bootstrap_servers)
        done = create_topics(settings, wanted_topics(settings, partitions, replication_factor))
        for name, what in done.items():
            typer.echo(f"{name}: {what}")

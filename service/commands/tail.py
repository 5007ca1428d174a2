"""``prototide tail``: what the service says, for a person or as JSON lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from prototide.service.tailing import Kind, Reader, Told


def tail(
    topic: Annotated[str, typer.Argument(help="A topic of predictions or dead letters.")],
    kind: Annotated[
        Literal["predictions", "dead-letters"] | None,
        typer.Option(help="What the topic holds, where topics.* of the settings do not tell."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a row instead of tables.")] = False,
    limit: Annotated[int | None, typer.Option(min=1, help="End after this many rows.")] = None,
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Start at the first record instead of behind the last.")
    ] = False,
    until_end: Annotated[
        bool, typer.Option("--until-end", help="End at the last record instead of waiting for more.")
    ] = False,
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="Brokers, host:port separated by commas; overrides kafka.bootstrap_servers.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="A setting, a.b=value; repeatable.")] = None,
) -> None:
    """Prints predictions or dead letters as they come, until Ctrl-C.

    Of a predictions topic each predicted row, with its truth where the producer
    sent one (green: right, red: wrong); of dead letters each record's reason.
    Only committed records; no consumer group is joined, no offset committed.

    prototide tail predictions
    prototide tail predictions --from-beginning --until-end --json
    prototide tail dead-letters --from-beginning --limit 20
    """
    from prototide.service.commands.ending import ending_in_one_line, settings_of, stopped_by_interrupt
    from prototide.service.tailing import Kind, Reader, kind_of

    with ending_in_one_line(), stopped_by_interrupt() as stopped:
        settings = settings_of(config, overrides, bootstrap_servers)
        holds = kind_of(topic, settings) if kind is None else Kind(kind)
        reader = Reader(settings, topic, from_beginning=from_beginning, until_end=until_end, stopped=stopped)
        try:
            _print(reader, holds, _json_lines() if as_json else _tables(holds), limit)
        finally:
            reader.close()


def _print(reader: Reader, kind: Kind, show: Callable[[Told], None], limit: int | None) -> None:
    """Shows what comes until the reader ends or `limit` rows were shown."""
    from prototide.service.tailing import Told, told

    left = limit
    for messages in reader:
        rows, unreadable = told(messages, kind)
        show(Told(rows[:left], unreadable))
        if left is not None:
            left -= min(left, len(rows))
            if left == 0:
                return


def _json_lines() -> Callable[[Told], None]:
    import json

    def show(told: Told) -> None:
        for line in told.unreadable:
            typer.echo(f"prototide: {line}", err=True)
        if told.rows:
            typer.echo("\n".join(json.dumps(row, ensure_ascii=False) for row in told.rows))

    return show


def _tables(kind: Kind) -> Callable[[Told], None]:
    from rich.console import Console

    from prototide.service.tail_tables import table

    console = Console()
    if not console.is_terminal:
        console = Console(width=200)

    def show(told: Told) -> None:
        for line in told.unreadable:
            typer.echo(f"prototide: {line}", err=True)
        if told.rows:
            console.print(table(told.rows, kind))

    return show

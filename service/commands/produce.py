"""``prototide produce``: a file's rows to the train topic."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from prototide.service.producing import Feed
    from prototide.service.settings import Settings


def produce(
    file: Annotated[Path, typer.Argument(help="svmlight, TSV, CSV or JSON lines, told by its name; plain or .gz.")],
    topic: Annotated[str | None, typer.Option(help="Topic to send to; by default topics.train.")] = None,
    label: Annotated[
        str | None,
        typer.Option(help="Column of the label: its name, or its number from 1; by default 1 (JSON: the key label)."),
    ] = None,
    text: Annotated[
        str | None,
        typer.Option(help="Column of the text: its name, or its number from 1; by default 2 (JSON: the key text)."),
    ] = None,
    header: Annotated[
        bool | None,
        typer.Option(
            "--header/--no-header",
            help="Whether the first line of a TSV or CSV names columns; by default when --label or --text is a name.",
        ),
    ] = None,
    columns: Annotated[int, typer.Option(min=1, help="Columns that text is hashed into.")] = 2**17,
    batch_rows: Annotated[int, typer.Option(min=1, help="Rows in a record.")] = 256,
    rate: Annotated[float | None, typer.Option(min=1e-3, help="Rows a second; by default as fast as it goes.")] = None,
    shuffle: Annotated[
        int | None, typer.Option(metavar="SEED", help="Shuffle the rows by this seed (reads the whole file first).")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Send this many rows at most.")] = None,
    bootstrap_servers: Annotated[
        str | None, typer.Option(help="Brokers, host:port separated by commas; overrides kafka.bootstrap_servers.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file of settings.")] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="A setting, a.b=value; repeatable.")] = None,
) -> None:
    """Sends a file's rows to the train topic, for the service to predict and learn.

    svmlight (.svm, .svmlight, .libsvm): an int label, then column:value pairs.
    Text (.tsv, .csv, .jsonl, .ndjson): a label and a text, which is hashed into
    columns (words, sublinear counts, unit length). TSV is taken without quoting.
    An empty label is an unlabelled row: it is predicted, not learned.

    prototide produce train.tsv.gz --shuffle 0
    prototide produce mails.csv --label class --text body --rate 500
    prototide produce stream.svm.gz --batch-rows 64 --limit 10000
    """
    from prototide.service.commands.ending import ending_in_one_line, settings_of, stopped_by_interrupt
    from prototide.service.producing import Feed
    from prototide.service.sources import Columns

    feed = Feed(
        path=file,
        columns=Columns(_column("--label", label), _column("--text", text), header),
        hashed_columns=columns,
        batch_rows=batch_rows,
        rows_per_second=rate,
        shuffle_seed=shuffle,
        most_rows=limit,
    )
    with ending_in_one_line(), stopped_by_interrupt() as stopped:
        settings = settings_of(config, overrides, bootstrap_servers)
        _send(settings, feed, topic or settings.topics.train, stopped)


def _send(settings: Settings, feed: Feed, topic: str, stopped: Callable[[], bool]) -> None:
    """Sends the file under a progress bar; ends with one line of what was delivered."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    from prototide.service.producing import new_sender, produce_file
    from prototide.service.row_encoding import RowEncoder
    from prototide.service.sources import Lines, format_of

    format_of(feed.path)  # a wrong file is told before any broker is asked
    Lines(feed.path).close()
    console = Console(stderr=True)
    parts = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    encoder = RowEncoder(feed.hashed_columns, settings.limits.record())
    sender = new_sender(settings, topic, stopped)
    with Progress(*parts, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(feed.path.name, total=1.0)

        def progress(rows: int, share: float) -> None:
            bar.update(task, completed=share, description=f"{feed.path.name}: {rows:,} rows")

        sent = produce_file(feed, sender, encoder, stopped, progress)
    typer.echo(f"{'stopped: ' if stopped() else ''}{sent.summary(topic)}")


def _column(option: str, value: str | None) -> int | str | None:
    if value is None or not value.isdecimal():
        return value
    if int(value) < 1:
        raise typer.BadParameter(f"{value}: columns are numbered from 1", param_hint=option)
    return int(value)

"""``prototide config``: the effective settings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from prototide.service.settings import Effective

_PIPE_WIDTH = 200  # characters: a pipe has no width of its own


def config(
    config_file: Annotated[
        Path | None, typer.Option("--config", help="TOML file of settings; by default the one PROTOTIDE_CONFIG names.")
    ] = None,
    overrides: Annotated[list[str] | None, typer.Option("--set", help="A setting, a.b=value; repeatable.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list instead of a table.")] = False,
) -> None:
    """Prints every setting: its value, where the value comes from, what it means. Secrets are masked.

    Sources, weakest first: defaults; a TOML file, where a.b is b = ... below \\[a]; the environment, where it is
    PROTOTIDE_A__B (PROTOTIDE_A__B_FILE names a file that holds the value); --set a.b=value.

    prototide config --config prototide.toml --set batch.max_rows=1024
    """
    import json
    from dataclasses import asdict

    from prototide.service.commands.ending import ending_in_one_line, settings_of

    with ending_in_one_line():
        rows = settings_of(config_file, overrides, None).effective()
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=2))
    else:
        _print_table(rows)


def _print_table(rows: Sequence[Effective]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from prototide.service.settings import as_text

    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_WIDTH)
    table = Table("setting", "value", "source", "meaning", box=box.SIMPLE_HEAD)
    table.columns[0].no_wrap = True
    for row in rows:
        # Text, not str: rich would read [...] in a value as markup.
        cells = (Text(cell) for cell in (row.name, as_text(row.value), row.source, row.help))
        table.add_row(*cells, style="" if row.source == "default" else "bold")
    console.print(table)

"""The command line: which commands there are; each lives in a module of its own under `commands`."""

from __future__ import annotations

from importlib.metadata import version
from typing import Annotated

import typer

from prototide.service.commands import checkpoints, config, demo, produce, run, tail, topics

app = typer.Typer(
    name="prototide",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"prototide {version('prototide')}")
        raise typer.Exit


@app.callback()
def main(
    _version: Annotated[
        bool,
        typer.Option(
            "--version", is_flag=True, callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Streaming classification on Kafka: predicts every row, learns from it at once, shows drift."""


app.command("run")(run.run)
app.command("config")(config.config)
app.command("produce")(produce.produce)
app.command("tail")(tail.tail)
app.command("demo")(demo.demo)
app.add_typer(topics.app, name="topics")
app.add_typer(checkpoints.app, name="checkpoints")

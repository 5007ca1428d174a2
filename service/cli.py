"""The command line: which commands there are; each lives in a module of its own under `commands`."""

from __future__ import annotations

import typer

from prototide.service.commands import checkpoints, config, demo, produce, run, tail, topics

app = typer.Typer(
    name="prototide",
    help="Streaming classification on Kafka: predicts every row, learns from it at once, shows drift.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("run")(run.run)
app.command("config")(config.config)
app.command("produce")(produce.produce)
app.command("tail")(tail.tail)
app.command("demo")(demo.demo)
app.add_typer(topics.app, name="topics")
app.add_typer(checkpoints.app, name="checkpoints")

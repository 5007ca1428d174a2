"""``prototide demo``: the main job on a generated stream, nothing else needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pathlib import Path

    from prototide.service.settings import Settings


def demo(
    seconds: Annotated[
        float | None, typer.Option(min=0.1, help="Stop that long after the first step; by default at Ctrl-C.")
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0, metavar="ROWS", help="Rows a second; 0: as fast as the service takes them.")
    ] = 1500,
    seed: Annotated[int, typer.Option(help="Of the generated stream.")] = 0,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Where to serve /metrics and the status page; 0: any free port.")
    ] = 0,
    produce_only: Annotated[
        bool,
        typer.Option(
            "--produce-only", help="Only send the stream to topics.train of the brokers of the settings (environment)."
        ),
    ] = False,
) -> None:
    """Shows the service at work: a drifting stream of documents in which new classes keep appearing.

    The broker is embedded (librdkafka's mock cluster), the service is the one of `prototide run`: it predicts every
    row, then learns it. Now and then classes exchange their words: accuracy falls and recovers, the drift detectors
    alarm. Now and then a record is broken: a dead letter, nothing else is lost.
    """
    from prototide.service.commands.ending import ending_in_one_line

    rows_per_second = rate or None
    with ending_in_one_line():
        if produce_only:
            _produce(seconds, rows_per_second, seed)
        else:
            _show(seconds, rows_per_second, seed, port or _free_port())


def _show(seconds: float | None, rows_per_second: float | None, seed: int, port: int) -> None:
    """The demo itself; the service runs in this thread, the stream is sent from another."""
    import tempfile
    import time
    from pathlib import Path

    from rich.console import Console

    from prototide.service.demo_screen import screen
    from prototide.service.steps import StepStats
    from prototide.service.stopping import Stopping
    from prototide.service.view import Progress, summary

    stopping = Stopping(grace_seconds=10)
    stopping.on_signals()
    console = Console(highlight=False)
    progress = Progress(clock=time.monotonic)
    with screen(console, progress, f"http://127.0.0.1:{port}"), tempfile.TemporaryDirectory() as folder:
        # The learner takes seconds to import: the screen comes first.
        from prototide.service.demo_feed import InFlight, embedded_broker, sending
        from prototide.service.serving import serve

        in_flight = InFlight()

        def on_step(stats: StepStats) -> None:
            progress.observe(stats)
            in_flight.done(stats.records)
            if seconds is not None and progress.snapshot().seconds >= seconds:
                stopping.request()

        with embedded_broker() as address:
            settings = _settings(address, Path(folder), port)
            with sending(settings, seed, rows_per_second, in_flight, stopping):
                serve(settings, stopping, on_step)
    console.print(summary(progress.snapshot()))


def _settings(broker: str, folder: Path, port: int) -> Settings:
    """Those of the service in the demo; the environment has no say."""
    from prototide.service.settings import load

    overrides = {
        "kafka.bootstrap_servers": broker,
        "delivery": "at_least_once",  # the embedded broker has no transactions
        "checkpoint.uri": str(folder),
        "checkpoint.interval_s": "10",
        "http.host": "127.0.0.1",
        "http.port": str(port),
    }
    return load(None, [f"{name}={value}" for name, value in overrides.items()], environ={})


def _produce(seconds: float | None, rows_per_second: float | None, seed: int) -> None:
    """Sends the stream to the brokers of the settings."""
    import time

    from prototide.service.commands.ending import stopped_by_interrupt
    from prototide.service.demo_feed import send_stream
    from prototide.service.demo_stream import DemoStream
    from prototide.service.producing import new_sender
    from prototide.service.settings import load

    with stopped_by_interrupt() as interrupted:
        settings = load()
        sender = new_sender(settings, settings.topics.train, interrupted)
        ends = time.monotonic() + (float("inf") if seconds is None else seconds)
        stopped: Callable[[], bool] = lambda: interrupted() or time.monotonic() >= ends  # noqa: E731
        sent = send_stream(sender, DemoStream(seed), rows_per_second, stopped)
    typer.echo(sent.summary(settings.topics.train))


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

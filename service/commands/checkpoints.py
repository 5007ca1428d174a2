"""``prototide checkpoints``: what is kept where `checkpoint.uri` says."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from prototide.service.settings import Settings
    from prototide.service.stores import Store

app = typer.Typer(name="checkpoints", help="The checkpoints that there are.", no_args_is_help=True)

Config = Annotated[Path | None, typer.Option("--config", help="TOML file of settings.")]
Overrides = Annotated[list[str] | None, typer.Option("--set", help="A setting, a.b=value; repeatable.")]


@app.callback()
def checkpoints() -> None:
    """The checkpoints that there are."""


@app.command("list")
def list_(config: Config = None, overrides: Overrides = None) -> None:
    """Each checkpoint, newest first: step, bytes, model, journal offset, positions."""
    _show(config, overrides, verify=False)


@app.command()
def verify(config: Config = None, overrides: Overrides = None) -> None:
    """Reads every checkpoint; exit code 78 when one is not whole, or none is."""
    _show(config, overrides, verify=True)


@app.command()
def prune(
    config: Config = None,
    overrides: Overrides = None,
    keep: Annotated[int | None, typer.Option(min=1, help="How many to keep; checkpoint.keep by default.")] = None,
) -> None:
    """Removes all but the newest whole checkpoints; newer ones that are broken stay."""
    from prototide.service import stores
    from prototide.service.checkpoints import step_of
    from prototide.service.commands.ending import ending_in_one_line
    from prototide.service.errors import PersonMustAct

    with ending_in_one_line():
        settings, store = _opened(config, overrides)
        with stores.reachable(settings.checkpoint.uri):
            names = store.names()
            newest = next((name for name in names if _is_whole(store, name)), None)
            if names and newest is None:
                raise PersonMustAct(
                    f"none of the {len(names)} checkpoints in {settings.checkpoint.uri} is whole: nothing was removed",
                    "`prototide checkpoints verify` says why",
                )
            gone = [] if newest is None else stores.prune(store, keep or settings.checkpoint.keep, step_of(newest))
            for name in gone:
                typer.echo(f"removed {name}")
            typer.echo(f"{len(names) - len(gone)} kept, {len(gone)} removed")


def _show(config: Path | None, overrides: list[str] | None, *, verify: bool) -> None:
    from prototide.service import stores
    from prototide.service.checkpoints import InvalidCheckpointError
    from prototide.service.commands.ending import ending_in_one_line
    from prototide.service.errors import PersonMustAct

    with ending_in_one_line():
        settings, store = _opened(config, overrides)
        broken, whole = [], 0
        with stores.reachable(settings.checkpoint.uri):
            for name in store.names():
                try:
                    found, size = store.read(name), store.size(name)
                except InvalidCheckpointError as why:
                    typer.echo(f"{name}: broken: {why}")
                    broken.append(name)
                    continue
                whole += 1
                at = "; ".join(
                    f"{topic} {', '.join(f'{partition}:{offset}' for partition, offset in sorted(offsets.items()))}"
                    for topic, offsets in found.positions.items()
                )
                model = f"model {found.model_id}, journal {found.journal}" if found.model_id else "at least once"
                typer.echo(f"{name}: step {found.step}, {size} bytes, {model}, at {at}")
        if verify and (broken or not whole):
            raise PersonMustAct(
                f"{len(broken)} of {whole + len(broken)} checkpoints at {settings.checkpoint.uri} are broken",
                "a start uses the newest whole one and replays the journal from there"
                if whole
                else "a start replays the journal from its genesis",
            )


def _is_whole(store: Store, name: str) -> bool:
    from prototide.service.checkpoints import InvalidCheckpointError

    try:
        store.read(name)
    except InvalidCheckpointError:
        return False
    return True


def _opened(config: Path | None, overrides: list[str] | None) -> tuple[Settings, Store]:
    from prototide.service.commands.ending import settings_of
    from prototide.service.stores import store_of

    settings = settings_of(config, overrides, None)
    return settings, store_of(settings.checkpoint.uri)

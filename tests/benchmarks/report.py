"""What every benchmark shares: options, where it ran, a table, a JSON file, a progress bar."""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.benchmarks.data import DEFAULT_DATA, DEVELOPMENT, SHUFFLE_SEED, SOURCES

PACKAGES = ("prototide", "numpy", "scipy", "scikit-learn", "numba", "river")
WIDE = 200  # columns of a table that is not written to a terminal

Args = ParamSpec("Args")
Result = TypeVar("Result")
Cell = float | int | str | None
Record = dict[str, Cell]


def names(choices: Iterable[str], separator: str = ",") -> Any:
    """For argparse: names out of `choices`, joined by `separator`."""
    known = list(choices)

    def parse(text: str) -> list[str]:
        unknown = [name for name in text.split(separator) if name not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is unknown; there are {', '.join(known)}")
        return text.split(separator)

    return parse


def parser(description: str | None, sets: Sequence[str] = tuple(DEVELOPMENT)) -> argparse.ArgumentParser:
    """The options that all benchmarks have; `sets`: the default ones."""
    options = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--sets", type=names(SOURCES), default=list(sets), help=f"default: {','.join(sets)}")
    options.add_argument("--data", type=Path, default=DEFAULT_DATA, help="folder of the data sets")
    options.add_argument("--json", type=Path, help="file for the results")
    return options


def or_exit(read: Callable[Args, Result], *args: Args.args, **more: Args.kwargs) -> Result:
    """What `read` returns; a missing file ends the program with what is missing."""
    try:
        return read(*args, **more)
    except FileNotFoundError as error:
        sys.exit(str(error))


def progress() -> Progress:
    """A bar with steps done and time, on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=Console(stderr=True), transient=True)


def show(title: str, rows: Sequence[Record], digits: int = 4) -> None:
    """Prints rows of equal keys as a table."""
    table = Table(title=title)
    for key in rows[0] if rows else ():
        text = all(isinstance(row[key], str) for row in rows)
        table.add_column(key, justify="left" if text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(_text(value, digits) for value in row.values()))
    console = Console()
    Console(width=None if console.is_terminal else WIDE).print(table)


def filled(rows: Sequence[Mapping[str, Cell]]) -> list[Record]:
    """The rows with all keys that any of them has; None where it has not."""
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: row.get(key) for key in keys} for row in rows]


def _text(value: Cell, digits: int) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):  # not every benchmark needs all of them
            found[name] = version(name)
    return found


def write(path: Path | None, benchmark: str, options: argparse.Namespace, results: Any) -> None:
    """The results as JSON with versions, seeds and machine; nothing without a path."""
    if path is None:
        return
    about = {
        "benchmark": benchmark,
        "options": {key: value for key, value in vars(options).items() if key not in ("json", "data")},
        "versions": {"python": platform.python_version()} | _versions(),
        "seeds": {"shuffle": SHUFFLE_SEED},
        "machine": {"system": platform.system(), "architecture": platform.machine()},
    }
    path.write_text(json.dumps(about | {"results": results}, indent=2, default=str) + "\n")

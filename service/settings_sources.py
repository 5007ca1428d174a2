"""Where settings come from: a TOML file, the environment, flags; each read into leaves ``a.b -> Given``.

A source is a pure function of its input. Unknown names and unreadable values become problems, one line each,
which never show a value: it might be a secret.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PREFIX = "PROTOTIDE_"


@dataclass(frozen=True, slots=True)
class Given:
    """A value somebody gave for one setting."""

    value: Any = field(repr=False)
    source: str
    secret: bool = False  # given by file: masked wherever it is shown


@dataclass(frozen=True, slots=True)
class Names:
    """The names that exist: ``leaves`` maps each to whether its value is text; ``tables`` take any name below them."""

    leaves: Mapping[str, bool]
    tables: frozenset[str]

    @property
    def sections(self) -> frozenset[str]:
        """First parts of dotted names."""
        return frozenset(name.split(".")[0] for name in (*self.leaves, *self.tables) if "." in name)

    def table_of(self, name: str) -> str | None:
        """The pass-through table that `name` lies in, or None."""
        return next((table for table in self.tables if name.startswith(f"{table}.")), None)

    def unknown(self, name: str, source: str) -> str:
        """The problem of a name that does not exist."""
        sections = () if "." in name else self.sections
        near = difflib.get_close_matches(name, [*self.leaves, *self.tables, *sections], n=1)
        hint = f", did you mean {near[0]}?" if near else ""
        return f"{name} ({source}) is not a setting{hint}"


class Leaves:
    """What one source gave: values by leaf name, and problems."""

    def __init__(self, names: Names) -> None:
        self.names = names
        self.given: dict[str, Given] = {}
        self.problems: list[str] = []

    def add(self, name: str, given: Given) -> None:
        """Takes a typed value; a table is taken apart into its properties."""
        if name in self.names.tables:
            if not isinstance(given.value, Mapping):
                self.problems.append(f'{name} ({given.source}): must be a table of properties, as {{"key": "value"}}')
                return
            for key, value in _flatten(given.value):
                self.given[f"{name}.{key}"] = Given(value, given.source, given.secret)
        elif name in self.names.leaves or self.names.table_of(name):
            self.given[name] = given
        else:
            self.problems.append(self.names.unknown(name, given.source))

    def add_text(self, name: str, given: Given) -> None:
        """Takes a value written as text: JSON where it parses as such and the setting is not text itself."""
        is_text = self.names.leaves.get(name, self.names.table_of(name) is not None)
        self.add(name, given if is_text else Given(_parsed(given.value), given.source, given.secret))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def _flatten(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def from_toml(path: Path, names: Names) -> Leaves:
    """Settings of a TOML file; a file that cannot be read is a problem."""
    leaves = Leaves(names)
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        leaves.problems.append(f"configuration file {path}: {error.strerror}")
        return leaves
    except UnicodeDecodeError:
        leaves.problems.append(f"configuration file {path}: is not UTF-8")
        return leaves
    except tomllib.TOMLDecodeError as error:
        leaves.problems.append(f"configuration file {path}: is not TOML: {error}")
        return leaves
    except RecursionError:
        leaves.problems.append(f"configuration file {path}: is nested too deeply")
        return leaves
    for key, value in document.items():
        if key in names.sections and isinstance(value, Mapping):
            for inner, inner_value in value.items():
                leaves.add(f"{key}.{inner}", Given(inner_value, str(path)))
        elif key in names.sections:
            leaves.problems.append(f"{key} ({path}): is a section, write [{key}] and its settings below")
        else:
            leaves.add(key, Given(value, str(path)))
    return leaves


def from_environment(environ: Mapping[str, str], names: Names) -> Leaves:
    """Settings of ``PROTOTIDE_SECTION__NAME`` with a known section and of ``PROTOTIDE_NAME`` for names without one.

    Other variables that start the same are nobody's mistake: Kubernetes injects such for a service called prototide.
    """
    leaves = Leaves(names)
    for variable in sorted(environ):
        name = _setting_of(variable, names)
        if name is not None:
            leaves.add_text(name, Given(environ[variable], variable))
        elif variable.endswith("_FILE") and (name := _setting_of(variable.removesuffix("_FILE"), names)) is not None:
            _add_file(leaves, name, variable, environ)
        elif (name := _dotted(variable)).partition(".")[0] in names.sections and "." in name:
            leaves.problems.append(names.unknown(name, variable))
    return leaves


def _dotted(variable: str) -> str:
    return variable.removeprefix(PREFIX).lower().replace("__", ".") if variable.startswith(PREFIX) else ""


def _setting_of(variable: str, names: Names) -> str | None:
    name = _dotted(variable)
    return name if name in names.leaves or name in names.tables else None


def _add_file(leaves: Leaves, name: str, variable: str, environ: Mapping[str, str]) -> None:
    twin = variable.removesuffix("_FILE")
    if twin in environ:
        leaves.problems.append(f"{name}: both {twin} and {variable} are set, keep one")
        return
    path = environ[variable]
    try:
        text = Path(path).read_text("utf-8").rstrip("\r\n")
    except OSError as error:
        leaves.problems.append(f"{name} ({variable}): file {path}: {error.strerror}")
    except UnicodeDecodeError:
        leaves.problems.append(f"{name} ({variable}): file {path} is not UTF-8")
    else:
        leaves.add_text(name, Given(text, variable, secret=True))


def from_flags(overrides: Sequence[str], names: Names) -> Leaves:
    """Settings of ``--set a.b=value``; what a table passes through is named by its whole dotted name."""
    leaves = Leaves(names)
    for number, override in enumerate(overrides, start=1):
        name, equals, text = override.partition("=")
        if not equals:
            leaves.problems.append(f"--set number {number}: must be a.b=value")
            continue
        leaves.add_text(name.strip(), Given(text, "--set"))
    return leaves

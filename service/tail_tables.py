"""The rows that `prototide tail` reads, as tables for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from prototide.service.tailing import Kind


def table(rows: Sequence[dict[str, Any]], kind: Kind) -> Table:
    """A table of some rows."""
    return _predictions(rows) if kind is Kind.PREDICTIONS else _dead_letters(rows)


def _predictions(rows: Sequence[dict[str, Any]]) -> Table:
    made = Table("source", "row", "id", "predicted", "truth", "score", "prototype", "best classes", box=None)
    for row in rows:
        known = "truth" in row and row["truth"] is not None
        right = known and _same(row["label"], row["truth"])
        made.add_row(
            plain(row["source"]),
            plain(row["row"]),
            shown(row.get("id")) if "id" in row else plain(""),
            shown(row["label"], ("green" if right else "red") if known else ""),
            shown(row.get("truth")) if known else plain(""),
            plain(f"{row['score']:.3f}"),
            plain("" if row["prototype"] < 0 else row["prototype"]),
            Text(", ").join(shown(label).append(f" {prob:.2f}") for label, prob in row.get("top", ())),
        )
    return made


def _dead_letters(rows: Sequence[dict[str, Any]]) -> Table:
    made = Table("record", "source", "reason", "bytes", "detail", box=None)
    for row in rows:
        made.add_row(
            plain(row["record"]),
            plain(row["source"]),
            plain(row["reason"] or "?", "red"),
            plain(f"{row['bytes']:,}"),
            plain(row["detail"] or ""),
        )
    return made


def shown(label: int | str | None, style: str = "") -> Text:
    """A label; a string that looks like an int is quoted, because 1 and "1" are two classes."""
    if label is None:
        return Text("unknown", style or "dim")
    if isinstance(label, str) and (label == "unknown" or label.lstrip("-").isdecimal()):
        return plain(f'"{label}"', style)
    return plain(label, style)


def plain(value: object, style: str = "") -> Text:
    """Text as it is: neither markup nor a terminal's control characters work."""
    return Text("".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in str(value)), style)


def _same(label: object, truth: object) -> bool:
    return type(label) is type(truth) and label == truth

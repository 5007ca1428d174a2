from __future__ import annotations

from typing import Any

from rich.console import Console

from prototide.service.tail_tables import plain, shown, table
from prototide.service.tailing import Kind

ROW: dict[str, Any] = {"source": "train/0/7", "row": 0, "step": 1, "label": "a", "score": 1.5, "prototype": 4}


def printed(rows: list[dict[str, Any]], kind: Kind, *, styled: bool = False) -> str:
    console = Console(width=200, force_terminal=styled, color_system="standard" if styled else None)
    with console.capture() as capture:
        console.print(table(rows, kind))
    return capture.get()


def test_a_prediction_shows_its_source_class_score_and_best_classes() -> None:
    line = printed([ROW | {"id": "mail-1", "truth": "b", "top": [["a", 0.75], ["b", 0.25]]}], Kind.PREDICTIONS)
    for part in ("train/0/7", "mail-1", "a", "b", "1.500", "4", "a 0.75, b 0.25"):
        assert part in line.splitlines()[1]


def test_right_is_green_and_wrong_is_red_and_1_is_not_the_string_1() -> None:
    green, red = "\x1b[32m", "\x1b[31m"
    assert green in printed([ROW | {"truth": "a"}], Kind.PREDICTIONS, styled=True)
    for wrong in ({"truth": "b"}, {"label": 1, "truth": "1"}, {"label": None, "truth": "a"}):
        assert red in printed([ROW | wrong], Kind.PREDICTIONS, styled=True)
    without = printed([ROW | {"truth": None}], Kind.PREDICTIONS, styled=True)
    assert green not in without
    assert red not in without


def test_labels_that_could_be_confused_are_told_apart() -> None:
    labels = [1, "1", "-1", "one", None, "unknown"]
    assert [shown(label).plain for label in labels] == ["1", '"1"', '"-1"', "one", "unknown", '"unknown"']


def test_labels_are_neither_markup_nor_control_characters() -> None:
    assert "[red]a[/]" in printed([ROW | {"label": "[red]a[/]"}], Kind.PREDICTIONS)
    assert plain("a\x1b[2Jb\nc").plain == "a\ufffd[2Jb\ufffdc"


def test_a_dead_letter_shows_where_why_and_how_large() -> None:
    row = {
        "record": "dead-letters/0/5",
        "source": "train/0/7",
        "reason": "schema",
        "detail": "missing: v",
        "bytes": 9000,
    }
    line = printed([row, row | {"reason": None, "detail": None}], Kind.DEAD_LETTERS).splitlines()[1]
    for part in ("dead-letters/0/5", "train/0/7", "schema", "missing: v", "9,000"):
        assert part in line

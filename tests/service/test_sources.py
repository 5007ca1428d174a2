from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from prototide.service.errors import PersonMustAct
from prototide.service.sources import (
    Columns,
    FileFormat,
    Lines,
    SparseRow,
    TextRow,
    UnparsableLine,
    format_of,
    read_rows,
)


def rows_of(path: Path, content: bytes | str, columns: Columns | None = None) -> list[tuple[object, ...]]:
    raw = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(raw) if path.suffix == ".gz" else raw)
    lines = Lines(path)
    try:
        return [tuple(row) for row in read_rows(lines, format_of(path), columns or Columns())]
    finally:
        lines.close()


def failure_of(path: Path, content: bytes | str, columns: Columns | None = None) -> UnparsableLine:
    with pytest.raises(UnparsableLine) as caught:
        rows_of(path, content, columns)
    return caught.value


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a.svm", FileFormat.SVMLIGHT),
        ("a.svmlight.gz", FileFormat.SVMLIGHT),
        ("a.libsvm", FileFormat.SVMLIGHT),
        ("A.TSV.GZ", FileFormat.TSV),
        ("b.csv", FileFormat.CSV),
        ("b.jsonl.gz", FileFormat.JSONL),
        ("b.ndjson", FileFormat.JSONL),
    ],
)
def test_the_name_tells_the_format(name: str, expected: FileFormat) -> None:
    assert format_of(Path(name)) is expected


def test_another_name_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(PersonMustAct, match=r"data\.xml.*\.svm.*\.jsonl"):
        format_of(Path("data.xml"))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(PersonMustAct, match=r"gone\.tsv: No such file"):
        Lines(tmp_path / "gone.tsv")


# svmlight


def test_svmlight_keeps_columns_as_written_and_labels_as_ints(tmp_path: Path) -> None:
    content = "# a comment\n+1 2:1 129:0.5 # more\n\n-3\n9007199254740993 0:1e-3\r\n"
    assert rows_of(tmp_path / "a.svm", content) == [
        SparseRow(2, 1, (2, 129), (1.0, 0.5)),
        SparseRow(4, -3, (), ()),
        SparseRow(5, 2**53 + 1, (0,), (0.001,)),
    ]


@pytest.mark.parametrize(
    "line",
    ["spam 1:1", "1.5 1:1", "1 x:1", "1 1", "1 1:", "1 1:2:3", "1 -1:1", "1 1:nan", "1 1:inf", "1 1:1e39", "1 1:1 1:2"],
)
def test_a_bad_svmlight_line_is_named(tmp_path: Path, line: str) -> None:
    error = failure_of(tmp_path / "a.svm", f"1 1:1\n{line}\n1 1:1\n")
    assert error.line == 2
    assert "int label, then column:value" in error.expected
    assert line in error.found


# TSV


def test_tsv_has_neither_quotes_nor_a_header_and_may_have_more_columns(tmp_path: Path) -> None:
    content = 'spam\tbuy "now\t1988\nham\thello, you\u2028there\r\n\r\n\tno label\nempty\t\n'
    assert rows_of(tmp_path / "a.tsv.gz", content) == [
        TextRow(1, "spam", 'buy "now'),
        TextRow(2, "ham", "hello, you\u2028there"),
        TextRow(4, None, "no label"),
        TextRow(5, "empty", ""),
    ]


def test_tsv_columns_are_chosen_by_number(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "a.tsv", "x\ty\tz\n", Columns(label=3, text=1)) == [TextRow(1, "z", "x")]


def test_names_of_columns_ask_for_a_header(tmp_path: Path) -> None:
    columns = Columns(label="class", text=1)
    assert rows_of(tmp_path / "a.tsv", "body\tclass\nhello\tspam\n", columns) == [TextRow(2, "spam", "hello")]


def test_a_missing_column_is_told_with_its_line(tmp_path: Path) -> None:
    error = failure_of(tmp_path / "a.tsv", "a\tb\nonly\n")
    assert (error.line, error.found) == (2, "1 column")
    assert error.expected == "the label in column 1 and the text in column 2"


def test_an_unknown_name_is_told_with_the_names_there_are(tmp_path: Path) -> None:
    error = failure_of(tmp_path / "a.csv", "class,body\nspam,hello\n", Columns(label="klass"))
    assert (error.line, error.found, error.expected) == (1, "the columns class, body", "one named 'klass'")


def test_bytes_that_are_not_utf8_are_told_with_their_line(tmp_path: Path) -> None:
    error = failure_of(tmp_path / "a.tsv", b"a\tb\na\tcaf\xe9\n")
    assert (error.line, error.found) == (2, "byte 6 is not UTF-8")


def test_a_byte_order_mark_is_no_part_of_the_first_label(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "a.tsv", b"\xef\xbb\xbfspam\tx\n") == [TextRow(1, "spam", "x")]


@pytest.mark.parametrize("content", [b"plain\ttext\n", gzip.compress(b"a\tb\n" * 9999)[:-20]], ids=["plain", "cut off"])
def test_a_broken_gzip_file_is_told(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(content)
    lines = Lines(path)
    with pytest.raises(UnparsableLine, match="a whole gzip file"):
        list(read_rows(lines, FileFormat.TSV, Columns()))
    lines.close()


# CSV


def test_csv_fields_may_be_quoted_and_run_over_lines(tmp_path: Path) -> None:
    content = 'class,body\nspam,"buy, ""now""\nor never"\nham,hi\n'
    assert rows_of(tmp_path / "a.csv", content, Columns(label="class", text="body")) == [
        TextRow(2, "spam", 'buy, "now"\nor never'),
        TextRow(4, "ham", "hi"),
    ]


def test_a_header_is_taken_away_only_when_said_or_meant(tmp_path: Path) -> None:
    content = "a,b\nc,d\n"
    path = tmp_path / "a.csv"
    assert len(rows_of(path, content)) == 2
    assert rows_of(path, content, Columns(header=True)) == [TextRow(2, "c", "d")]
    error = failure_of(path, content, Columns(label="a", header=False))
    assert error.found == "no line with the columns' names"


def test_a_quote_that_is_never_closed_is_told_with_the_line_it_opens_in(tmp_path: Path) -> None:
    error = failure_of(tmp_path / "a.csv", 'a,b\nc,"d\ne,f\n')
    assert error.line == 2


def test_a_csv_text_may_be_long(tmp_path: Path) -> None:
    assert rows_of(tmp_path / "a.csv", f"a,{'x ' * 200_000}\n")[0][2] == "x " * 200_000


@example([("a\r\n", "\n\r\r\n"), ("", '"')])
@given(st.lists(st.tuples(st.text(), st.text()), min_size=1))
def test_what_the_csv_module_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, table: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows(table)
    expected = [(label or None, text) for label, text in table]
    lines = Lines(path)
    try:
        read = [
            (row.label, row.text) for row in read_rows(lines, FileFormat.CSV, Columns()) if isinstance(row, TextRow)
        ]
    finally:
        lines.close()
    assert read == expected


# JSON lines


def test_json_objects_by_default_give_the_keys_label_and_text_or_the_first_two(tmp_path: Path) -> None:
    records = [
        {"text": "hello", "label": "ham"},
        {"class": "spam", "body": "buy"},
        ["spam", "buy"],
        {"label": 7, "text": "a number"},
        {"label": None, "text": "unlabelled"},
    ]
    content = "\n\n".join(map(json.dumps, records))
    assert [row[1:] for row in rows_of(tmp_path / "a.jsonl", content)] == [
        ("ham", "hello"),
        ("spam", "buy"),
        ("spam", "buy"),
        ("7", "a number"),
        (None, "unlabelled"),
    ]


def test_json_values_are_chosen_by_name_or_number(tmp_path: Path) -> None:
    content = '{"a": "x", "b": "y", "c": "z"}'
    assert rows_of(tmp_path / "a.jsonl", content, Columns(label="c", text=1)) == [TextRow(1, "z", "x")]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "one JSON object or array"),
        ("[" * 100_000, "one JSON object or array"),
        ("3", "one JSON object or array"),
        ('["a"]', "at least 2"),
        ('{"label": 1.5, "text": "a"}', "a string, an int or null"),
        ('{"label": true, "text": "a"}', "a string, an int or null"),
        ('{"label": "a", "text": null}', "a string"),
        ('{"label": "\\ud800", "text": "a"}', "whole characters"),
    ],
)
def test_a_bad_json_line_is_named(tmp_path: Path, line: str, expected: str) -> None:
    error = failure_of(tmp_path / "a.jsonl", f'["a", "b"]\n{line}\n')
    assert (error.line, error.expected) == (2, expected)


def test_a_missing_key_is_named(tmp_path: Path) -> None:
    error = failure_of(tmp_path / "a.jsonl", '{"label": "a", "text": "b"}', Columns(label="class"))
    assert error.expected == "an object with the key 'class'"


def test_how_far_a_file_is_read_is_known(tmp_path: Path) -> None:
    path = tmp_path / "a.tsv.gz"
    path.write_bytes(gzip.compress(b"a\tb\n" * 1000))
    lines = Lines(path)
    assert lines.bytes_read == 0
    assert len(list(lines)) == 1000
    assert lines.bytes_read == lines.size_bytes
    lines.close()


@pytest.mark.parametrize(
    "content",
    ["label,text\nspam,buy\n", "Category,Message\nham,hi\n", "id,label\n5,x\n", "label,text\n", "class,note\n7,x\n"],
)
def test_a_header_that_nobody_told_of_is_not_taken_for_a_row(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.csv"
    error = failure_of(path, content)
    assert error.line == 1
    assert "--header" in error.expected
    assert "--no-header" in error.expected
    assert len(rows_of(path, content, Columns(header=False))) == content.count("\n")
    assert len(rows_of(path, content, Columns(header=True))) == content.count("\n") - 1


@pytest.mark.parametrize(
    "content", ["spam,text\nham,hi\n", "topic,a real row\nbody,another one\n", "1,text\n2,class\n"]
)
def test_rows_with_a_usual_name_in_them_stay_rows(tmp_path: Path, content: str) -> None:
    assert len(rows_of(tmp_path / "a.csv", content)) == 2

"""Files of labelled rows, read line by line: svmlight, and text as TSV, CSV or JSON lines; each plain or gzip.

Nothing here knows Kafka or vectors; a line that cannot be read raises :class:`UnparsableLine`.
"""

from __future__ import annotations

import csv
import gzip
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from prototide.service.errors import PersonMustAct

_FLOAT32_MAX = float(np.finfo(np.float32).max)
_CSV_FIELD_BYTES = 2**26  # the csv module's own limit, 128 KiB, is less than a long text
_USUAL_NAMES = {
    "label", "class", "category", "target", "y", "intent", "topic", "tag", "id", "index",
    "text", "sentence", "body", "message", "content", "document", "title", "description", "query",
}  # fmt: skip


class FileFormat(StrEnum):
    """What a file's lines are, told by its name."""

    SVMLIGHT = "svmlight"
    TSV = "tsv"
    CSV = "csv"
    JSONL = "jsonl"


_EXTENSIONS = {
    ".svm": FileFormat.SVMLIGHT,
    ".svmlight": FileFormat.SVMLIGHT,
    ".libsvm": FileFormat.SVMLIGHT,
    ".tsv": FileFormat.TSV,
    ".csv": FileFormat.CSV,
    ".jsonl": FileFormat.JSONL,
    ".ndjson": FileFormat.JSONL,
}


class UnparsableLine(Exception):  # noqa: N818 - says what it is about, like RejectedRecord
    """Line `line` (from 1) holds `found` where `expected` was expected."""

    def __init__(self, line: int, found: str, expected: str) -> None:
        super().__init__(f"line {line}: {found}, expected {expected}")
        self.line = line
        self.found = found
        self.expected = expected


class TextRow(NamedTuple):
    """A text and its label; None: unlabelled."""

    line: int
    label: str | None
    text: str


class SparseRow(NamedTuple):
    """Columns and values as svmlight writes them, and a label."""

    line: int
    label: int
    columns: tuple[int, ...]
    values: tuple[float, ...]


Row = TextRow | SparseRow


@dataclass(frozen=True, slots=True)
class Columns:
    """Where label and text are: a name, or a number from 1; None: the format's default (see `read_rows`).

    `header`: whether the first line of TSV and CSV names the columns; None: when label or text is given by name.
    """

    label: int | str | None = None
    text: int | str | None = None
    header: bool | None = None

    def in_header(self) -> bool:
        """Whether a first line with names is there."""
        return isinstance(self.label, str) or isinstance(self.text, str) if self.header is None else self.header


def format_of(path: Path) -> FileFormat:
    """The format that the file's name tells; raises PersonMustAct for others."""
    name = path.name.lower().removesuffix(".gz")
    for extension, file_format in _EXTENSIONS.items():
        if name.endswith(extension):
            return file_format
    raise PersonMustAct(f"{path}: unknown kind of file", f"name it {', '.join(_EXTENSIONS)}, or one of these with .gz")


class Lines:
    """A file's lines without the newline, UTF-8, numbered from 1; `bytes_read` of the file tells how far it is."""

    def __init__(self, path: Path) -> None:
        """Raises PersonMustAct when the file cannot be opened."""
        try:
            self._file = path.open("rb")
            self.size_bytes = path.stat().st_size
        except OSError as error:
            raise PersonMustAct(f"cannot read {path}: {error.strerror}", "give a file that exists") from None
        self.number = 0  # of the line last read
        packed = path.name.lower().endswith(".gz")
        self._stream: IO[bytes] = gzip.GzipFile(fileobj=self._file) if packed else self._file  # type: ignore[assignment]

    @property
    def bytes_read(self) -> int:
        """Bytes of the file, compressed as it is, behind us."""
        return self._file.tell()

    def close(self) -> None:
        """Closes the file."""
        self._stream.close()
        self._file.close()

    def __iter__(self) -> Iterator[str]:
        while raw := self._next():
            try:
                line = raw.decode("utf-8-sig" if self.number == 1 else "utf-8")
            except UnicodeDecodeError as error:
                raise UnparsableLine(self.number, f"byte {error.start + 1} is not UTF-8", "UTF-8 text") from None
            yield line.removesuffix("\n")

    def _next(self) -> bytes:
        self.number += 1
        try:
            return self._stream.readline()
        except (OSError, EOFError, zlib.error) as error:
            raise UnparsableLine(self.number, str(error), "a whole gzip file") from None


def read_rows(lines: Lines, file_format: FileFormat, columns: Columns) -> Iterator[Row]:
    """The file's rows in order; blank lines are passed over. An empty label (JSON: null too) means unlabelled.

    svmlight: an int label, then ``column:value`` pairs, columns as written. TSV: no quoting; label and text in columns
    1 and 2 by default. CSV: quoted as usual, the same default. JSON lines: objects or arrays; by default the keys
    ``label`` and ``text`` when there, else the first two values.
    """
    match file_format:
        case FileFormat.SVMLIGHT:
            return _svmlight_rows(lines)
        case FileFormat.JSONL:
            return _json_rows(lines, columns)
        case FileFormat.TSV:
            return _table_rows(_tsv_records(lines), columns)
        case FileFormat.CSV:
            return _table_rows(_csv_records(lines), columns)


def _svmlight_rows(lines: Lines) -> Iterator[SparseRow]:
    for line in lines:
        label, *pairs = line.partition("#")[0].split() or [""]
        if not label:
            continue
        try:
            row = SparseRow(lines.number, int(label), *_columns_and_values(pairs))
        except ValueError:
            expected = "an int label, then column:value, each column once, from 0, with finite values"
            raise UnparsableLine(lines.number, f"{line[:60]!r}", expected) from None
        yield row


def _columns_and_values(pairs: Sequence[str]) -> tuple[tuple[int, ...], tuple[float, ...]]:
    split = [pair.split(":") for pair in pairs]
    columns = tuple(int(column) for column, _ in split)
    values = tuple(float(value) for _, value in split)
    if min(columns, default=0) < 0 or len(set(columns)) < len(columns):
        raise ValueError("columns count from 0, each at most once")
    if not all(abs(value) <= _FLOAT32_MAX for value in values):  # NaN compares false
        raise ValueError("not a finite float32")
    return columns, values


def _tsv_records(lines: Lines) -> Iterator[tuple[int, list[str]]]:
    for line in lines:
        if text := line.removesuffix("\r"):
            yield lines.number, text.split("\t")


def _csv_records(lines: Lines) -> Iterator[tuple[int, list[str]]]:
    """Records with the number of their first line: quoted fields may run over several."""
    csv.field_size_limit(_CSV_FIELD_BYTES)
    reader = csv.reader((f"{line}\n" for line in lines), strict=True)
    while True:
        first_line = reader.line_num + 1
        try:
            record = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            raise UnparsableLine(first_line, str(error), "comma-separated values, quoted with double quotes") from None
        if record:
            yield first_line, record


def _table_rows(records: Iterator[tuple[int, list[str]]], columns: Columns) -> Iterator[TextRow]:
    names = next(records, (1, []))[1] if columns.in_header() else None
    label, text = (_index(each, names) for each in (columns.label or 1, columns.text or 2))
    if columns.header is None and names is None:
        records = _without_names(records, label)
    for line, record in records:
        if len(record) <= max(label, text):
            expected = f"the label in column {label + 1} and the text in column {text + 1}"
            raise UnparsableLine(line, f"{len(record)} column{'s' * (len(record) != 1)}", expected)
        yield TextRow(line, record[label] or None, record[text])


def _without_names(records: Iterator[tuple[int, list[str]]], label: int) -> Iterator[tuple[int, list[str]]]:
    """The records; raises UnparsableLine when the first one looks like a header that nobody told of."""
    first = list(islice(records, 2))
    if first and _names_columns(first[0][1], label, first[-1][1]):
        found = f"{', '.join(first[0][1])}, which looks like the names of columns"
        raise UnparsableLine(first[0][0], found, "a row; say --header when it is none, --no-header when it is")
    return chain(first, records)


def _names_columns(first: list[str], label: int, second: list[str]) -> bool:
    """Whether all of its fields are usual names, or it has a word where the next line's label is a number."""
    if not first or len(first) != len(second) or label >= len(first):
        return False
    named = all(field.strip().lower() in _USUAL_NAMES for field in first)
    return named or (second[label].strip().isdecimal() and first[label].strip().lower() in _USUAL_NAMES)


def _index(column: int | str, names: list[str] | None) -> int:
    if isinstance(column, int):
        return column - 1
    if names is None or column not in names:
        found = "no line with the columns' names" if names is None else f"the columns {', '.join(names)}"
        raise UnparsableLine(1, found, f"one named {column!r}")
    return names.index(column)


def _json_rows(lines: Lines, columns: Columns) -> Iterator[TextRow]:
    for line in lines:
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UnparsableLine(lines.number, f"{error}", "one JSON object or array") from None
        if not isinstance(record, dict | list):
            raise UnparsableLine(lines.number, f"a JSON {type(record).__name__}", "one JSON object or array")
        label = _json_value(lines.number, record, columns.label, ("label", 1))
        text = _json_value(lines.number, record, columns.text, ("text", 2))
        yield _json_row(lines.number, label, text)


def _json_row(line: int, label: object, text: object) -> TextRow:
    if not isinstance(text, str):
        raise UnparsableLine(line, f"a text of type {type(text).__name__}", "a string")
    if isinstance(label, int) and not isinstance(label, bool):
        label = str(label)  # text's labels are strings, as in the other formats
    if label is not None and not isinstance(label, str):
        raise UnparsableLine(line, f"a label of type {type(label).__name__}", "a string, an int or null")
    if not f"{label}{text}".isascii():
        _check_unicode(line, label, text)
    return TextRow(line, label or None, text)


def _check_unicode(line: int, *texts: str | None) -> None:
    """JSON may escape half a character, which no UTF-8 can hold."""
    try:
        for text in texts:
            (text or "").encode()
    except UnicodeEncodeError:
        raise UnparsableLine(line, "half of a surrogate pair", "whole characters") from None


def _json_value(line: int, record: dict[str, Any] | list[Any], column: int | str | None, default: Any) -> Any:
    if column is None:
        column = default[0] if isinstance(record, dict) and {"label", "text"} <= record.keys() else default[1]
    if isinstance(column, str):
        if isinstance(record, dict) and column in record:
            return record[column]
        raise UnparsableLine(line, "no such key", f"an object with the key {column!r}")
    values = list(record.values()) if isinstance(record, dict) else record
    if len(values) < column:
        raise UnparsableLine(line, f"{len(values)} value{'s' * (len(values) != 1)}", f"at least {column}")
    return values[column - 1]

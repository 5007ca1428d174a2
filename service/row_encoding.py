"""Rows of a file as records of the train topic: text is hashed, columns are taken as they are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.preprocessing import normalize

from prototide.service.sources import Row, SparseRow, TextRow, UnparsableLine
from prototide.service.wire import Limits, encode_batch


class EncodedRows(NamedTuple):
    """One record's value, and how many rows it holds."""

    payload: bytes
    rows: int


class RowEncoder:
    """Makes records; svmlight's width is that of the widest row so far."""

    def __init__(self, columns: int, limits: Limits) -> None:
        """`columns`: how many text is hashed into."""
        self._limits = limits
        self._width = 1
        self._hashing = HashingVectorizer(n_features=columns, alternate_sign=False, norm=None, dtype=np.float32)

    def encode(self, rows: Sequence[Row]) -> Iterator[EncodedRows]:
        """One record, or several where one would be over the limits; raises UnparsableLine when one row is."""
        matrix = self._matrix(rows)
        payload = encode_batch(matrix, [row.label for row in rows])
        limits = self._limits
        if matrix.nnz <= limits.nnz and len(payload) <= limits.record_bytes and len(rows) <= limits.rows:
            yield EncodedRows(payload, len(rows))
        elif len(rows) > 1:
            middle = len(rows) // 2
            yield from self.encode(rows[:middle])
            yield from self.encode(rows[middle:])
        else:
            found = f"{matrix.nnz} non-zeros in {len(payload)} bytes"
            expected = f"at most {limits.nnz} in {limits.record_bytes} (limits.nnz, limits.record_bytes)"
            raise UnparsableLine(rows[0].line, found, expected)

    def check(self, row: Row) -> None:
        """Raises UnparsableLine for a row that the service would refuse."""
        if isinstance(row.label, str) and (size := len(row.label.encode())) > self._limits.label_bytes:
            expected = f"at most {self._limits.label_bytes} (limits.label_bytes)"
            raise UnparsableLine(row.line, f"a label of {size} bytes", expected)
        if isinstance(row.label, int) and not -(2**63) <= row.label < 2**63:
            raise UnparsableLine(row.line, "a label beyond 64 bits", "an int of 64 bits")
        if isinstance(row, SparseRow) and max(row.columns, default=0) >= self._limits.features:
            found, expected = f"column {max(row.columns)}", f"less than {self._limits.features} (limits.features)"
            raise UnparsableLine(row.line, found, expected)

    def _matrix(self, rows: Sequence[Row]) -> sparse.csr_matrix:
        """The rows as float32 CSR (n, width); a file holds rows of one kind."""
        texts = [row.text for row in rows if isinstance(row, TextRow)]
        return self._hashed(texts) if texts else self._stacked([row for row in rows if isinstance(row, SparseRow)])

    def _hashed(self, texts: Sequence[str]) -> sparse.csr_matrix:
        """Sublinear term frequencies, 1 + ln(count), of unit length."""
        counts: sparse.csr_matrix = self._hashing.transform(texts)
        counts.data = 1 + np.log(counts.data)
        normalize(counts, copy=False)
        return counts

    def _stacked(self, rows: Sequence[SparseRow]) -> sparse.csr_matrix:
        columns: NDArray[np.int64] = np.array([column for row in rows for column in row.columns], np.int64)
        values = np.array([value for row in rows for value in row.values], np.float64)
        ends = np.cumsum([0, *(len(row.columns) for row in rows)])
        self._width = max(self._width, int(columns.max(initial=0)) + 1)
        return sparse.csr_matrix((values, columns, ends), shape=(len(rows), self._width))


def batches(rows: Iterable[Row], encoder: RowEncoder, batch_rows: int) -> Iterator[list[Row]]:
    """Rows by `batch_rows`. Those before an unparsable line come whole before UnparsableLine is raised."""
    pending: list[Row] = []
    failed = None
    try:
        for row in rows:
            encoder.check(row)
            pending.append(row)
            if len(pending) == batch_rows:
                yield pending
                pending = []
    except UnparsableLine as error:
        failed = error
    if pending:
        yield pending
    if failed is not None:
        raise failed

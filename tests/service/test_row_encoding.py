from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from prototide.service.row_encoding import RowEncoder, batches
from prototide.service.sources import Row, SparseRow, TextRow, UnparsableLine
from prototide.service.wire import Batch, Limits, decode_batch


def decoded(encoder: RowEncoder, rows: list[Row]) -> list[Batch]:
    return [decode_batch(record.payload) for record in encoder.encode(rows)]


def texts(*pairs: tuple[str | None, str]) -> list[Row]:
    return [TextRow(line, label, text) for line, (label, text) in enumerate(pairs, start=1)]


def test_text_becomes_sublinear_counts_of_unit_length() -> None:
    (batch,) = decoded(RowEncoder(2**17, Limits()), texts(("a", "tide tide tide moon"), (None, ""), ("b", "moon")))
    assert batch.X.shape == (3, 2**17)
    assert batch.labels == ["a", None, "b"]
    moon = int(batch.X[2].indices[0])
    first = dict(zip(batch.X[0].indices.tolist(), batch.X[0].data.tolist(), strict=True))
    tide = next(column for column in first if column != moon)
    assert first[tide] / first[moon] == pytest.approx(1 + np.log(3))
    assert np.linalg.norm(batch.X[0].data) == pytest.approx(1)
    assert batch.X[1].nnz == 0
    assert batch.X[2].data.tolist() == [1.0]


def test_svmlight_rows_keep_columns_values_and_labels_and_the_width_never_shrinks() -> None:
    encoder = RowEncoder(2**17, Limits())
    (wide,) = decoded(encoder, [SparseRow(1, 2**53 + 1, (3, 1), (0.5, 2.0)), SparseRow(2, -1, (), ())])
    assert wide.X.toarray().tolist() == [[0, 2, 0, 0.5], [0, 0, 0, 0]]
    assert wide.labels == [2**53 + 1, -1]
    (narrow,) = decoded(encoder, [SparseRow(3, 1, (0,), (1.0,))])
    assert narrow.X.shape == (1, 4)


@pytest.mark.parametrize("limits", [Limits(nnz=4), Limits(record_bytes=150), Limits(rows=3)])
def test_a_record_over_a_limit_is_cut_into_several(limits: Limits) -> None:
    rows: list[Row] = [SparseRow(line, line, (line,), (1.0,)) for line in range(9)]
    records = list(RowEncoder(10, limits).encode(rows))
    assert len(records) > 1
    assert sum(record.rows for record in records) == 9
    assert [label for record in records for label in decode_batch(record.payload, limits).labels] == list(range(9))


def test_one_row_over_a_limit_is_told_with_its_line() -> None:
    row = SparseRow(42, 1, (0, 1, 2), (1.0, 1.0, 1.0))
    with pytest.raises(UnparsableLine, match=r"line 42: 3 non-zeros.*limits\.nnz"):
        list(RowEncoder(10, Limits(nnz=2)).encode([row]))


@pytest.mark.parametrize(
    ("row", "setting"),
    [
        (TextRow(7, "é" * 65, "x"), r"limits\.label_bytes"),
        (SparseRow(7, 1, (2**24,), (1.0,)), r"limits\.features"),
        (SparseRow(7, 2**63, (), ()), "64 bits"),
    ],
)
def test_a_row_that_the_service_would_refuse_is_told_before_it_is_sent(row: Row, setting: str) -> None:
    with pytest.raises(UnparsableLine, match=setting) as caught:
        RowEncoder(10, Limits()).check(row)
    assert caught.value.line == 7


def test_rows_before_a_bad_line_come_before_its_error() -> None:
    def rows() -> Iterator[Row]:
        yield from texts(*[("a", "x")] * 5)
        raise UnparsableLine(6, "nonsense", "sense")

    sizes = []
    with pytest.raises(UnparsableLine, match="line 6"):
        sizes.extend(len(batch) for batch in batches(rows(), RowEncoder(10, Limits()), 2))
    # `extend` takes what came before the error.
    assert sizes == [2, 2, 1]

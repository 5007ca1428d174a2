from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from prototide.core.rows import LARGEST, SMALLEST, canonical_rows, scaled

matrices = hnp.arrays(
    np.float64,
    hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=8),
    elements=st.one_of(st.just(0.0), st.floats(allow_nan=False, allow_infinity=False)),
)


@given(matrices)
def test_rows_are_canonical_and_say_what_the_matrix_says(X: np.ndarray) -> None:
    rows = canonical_rows(X)
    assert (rows.count, rows.width) == X.shape
    assert rows.data.all()
    for row in range(rows.count):
        assert (np.diff(rows.indices[rows.indptr[row] : rows.indptr[row + 1]]) > 0).all()
    np.testing.assert_array_equal(rows.matrix().toarray(), X)
    np.testing.assert_array_equal(rows.empty, ~X.any(axis=1))


@given(matrices, st.data())
def test_parts_and_chosen_rows_are_those_of_the_matrix(X: np.ndarray, data: st.DataObject) -> None:
    rows = canonical_rows(X)
    first = data.draw(st.integers(0, rows.count))
    last = data.draw(st.integers(first, rows.count))
    np.testing.assert_array_equal(rows.part(first, last).matrix().toarray(), X[first:last])
    chosen = np.array(data.draw(st.permutations(range(rows.count)))[:3], np.int64)
    np.testing.assert_array_equal(rows.take(chosen).matrix().toarray(), X[chosen])


@given(matrices)
def test_scaling_keeps_directions_and_brings_extremes_to_one(X: np.ndarray) -> None:
    rows = canonical_rows(X)
    after = scaled(rows)
    size = np.abs(X).max(axis=1, initial=0.0)
    usual = np.abs(X[X != 0])
    if not usual.size or (usual.min() > SMALLEST and usual.max() < LARGEST):
        assert after is rows
        return
    expected = np.divide(X, size[:, None], out=np.zeros_like(X), where=size[:, None] > 0)
    np.testing.assert_array_equal(after.matrix().toarray(), expected)


def test_stored_zeros_and_entries_that_cancel_are_no_entries() -> None:
    X = sp.coo_matrix(([0.0, 1.0, -1.0, 2.0], ([0, 1, 1, 1], [0, 1, 1, 0])), (2, 3))
    rows = canonical_rows(X)
    assert rows.empty.tolist() == [True, False]
    assert rows.indices.tolist() == [0]


def test_input_is_shared_where_it_is_canonical_already() -> None:
    X = sp.random(5, 5, 0.5, format="csr", random_state=0)
    assert np.shares_memory(canonical_rows(X).data, X.data)


@pytest.mark.parametrize(
    ("X", "kind", "message"),
    [
        ([[1.0, np.nan]], ValueError, "X contains NaN in row 0, column 1"),
        ([[1.0, 0.0], [-np.inf, 0.0]], ValueError, "X contains infinity in row 1, column 0"),
        (sp.csr_matrix([[0.0, 0.0], [0.0, np.nan]]), ValueError, "X contains NaN in row 1, column 1"),
        ([1.0, 2.0], ValueError, r"two dimensions .* got 1.*reshape\(1, -1\)"),
        (1.0, ValueError, "two dimensions"),
        (np.ones((2, 2, 2)), ValueError, "got 3"),
        ([[1j]], ValueError, "Complex data not supported"),
        (sp.csr_matrix([[1j]]), TypeError, "real numbers, got dtype complex128"),
        ([["one"]], ValueError, "real numbers.*could not convert"),
        ([[1.0, 2.0], [1.0]], ValueError, "X must hold rows of one length"),
        ([[None, {}]], TypeError, "real numbers"),
        (np.array([["2020-01-01"]], "datetime64[D]"), TypeError, "real numbers, got dtype datetime64"),
    ],
)
def test_what_cannot_be_rows_is_named(X: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        canonical_rows(X)


@pytest.mark.parametrize("column", [-1, 5, 2**31 - 1])
def test_column_ids_out_of_range_are_refused_and_the_input_stays(column: int) -> None:
    X = sp.csr_matrix((2, 5))
    X.indptr = np.array([0, 1, 2], np.int32)
    X.indices, X.data = np.array([0, column], np.int32), np.ones(2)
    with pytest.raises(ValueError, match=rf"column id {column}; allowed are 0 to 4"):
        canonical_rows(X)
    assert X.indices.tolist() == [0, column]


@pytest.mark.parametrize("column", [-1, 8])
@pytest.mark.parametrize("kind", ["csr", "coo", "bsr", "lil"])
def test_no_sparse_format_smuggles_in_a_column_out_of_range(kind: str, column: int) -> None:
    X = sp.csr_matrix(np.ones((4, 4))).asformat(kind)
    if kind == "lil":
        X.rows[1] = [column, 1, 2, 3]
    elif kind == "coo":
        X.coords[1][5] = column
    else:
        X.indices[-1] = column
    with pytest.raises(ValueError, match=r"X has the column id -?[1-9]+; allowed are 0 to 3"):
        canonical_rows(X)


def test_more_columns_than_32_bits_count_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 2,147,483,647"):
        canonical_rows(sp.coo_matrix((1, 2**31)))

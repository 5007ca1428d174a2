from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from scipy.spatial.distance import cdist

from prototide.core.lift import STANDARDISED_COLUMNS, EuclideanLift
from prototide.core.rows import canonical_rows
from tests.core.streams import dense_stream, text_stream


def _lift(X: Any, weight: Any = None) -> EuclideanLift:
    lift = EuclideanLift()
    rows = canonical_rows(X)
    lift.learn(rows, np.ones(rows.count) if weight is None else weight)
    return lift


def test_statistics_do_not_depend_on_how_rows_are_cut_into_batches() -> None:
    X, _ = dense_stream(0, 60, 5)
    whole, parts = _lift(X), EuclideanLift()
    for first in range(0, 60, 7):
        rows = canonical_rows(X[first : first + 7])
        parts.learn(rows, np.ones(rows.count))
    np.testing.assert_allclose(parts.mean, X.mean(0), rtol=1e-12)
    np.testing.assert_allclose(parts.squares, ((X - X.mean(0)) ** 2).sum(0), rtol=1e-10)
    np.testing.assert_allclose(parts.squares, whole.squares, rtol=1e-10)


def test_weights_count_as_repetitions_and_zero_as_nothing() -> None:
    X, _ = dense_stream(0, 30, 3)
    weight = np.arange(30) % 3
    weighted, repeated = _lift(X, weight.astype(float)), _lift(np.repeat(X, weight, axis=0))
    np.testing.assert_allclose(weighted.mean, repeated.mean, rtol=1e-12)
    np.testing.assert_allclose(weighted.squares, repeated.squares, rtol=1e-10)
    before = weighted.state()
    weighted.learn(canonical_rows(100 * X), np.zeros(30))
    for name, array in weighted.state().items():
        np.testing.assert_array_equal(array, before[name])


@pytest.mark.parametrize("wide", [False, True])
def test_lifted_rows_have_one_length_beside_the_constant(wide: bool) -> None:
    X: Any = (
        sp.random(20, STANDARDISED_COLUMNS + 1, 0.01, format="csr", random_state=0) if wide else dense_stream(1, 20)[0]
    )
    rows = canonical_rows(X)
    lifted = _lift(X).transform(rows)
    assert lifted.width == rows.width + 2
    dense = lifted.matrix().toarray()
    np.testing.assert_allclose((np.delete(dense, 1, axis=1) ** 2).sum(1), 1, rtol=1e-12)
    np.testing.assert_array_equal(dense[:, 1], 1)


def test_distances_on_the_sphere_are_those_of_the_inverse_stereographic_map() -> None:
    X, _ = dense_stream(2, 50, 3)
    lift = _lift(X)
    Z = lift.transform(canonical_rows(X)).matrix().toarray()
    u = (X - X.mean(axis=0)) / X.std(axis=0) / np.sqrt(3)
    stretch = 1 + (u**2).sum(axis=1)
    np.testing.assert_allclose(cdist(Z, Z), 2 * cdist(u, u) / np.sqrt(np.outer(stretch, stretch)), atol=1e-12)


def test_a_column_that_never_changes_is_left_alone() -> None:
    X = np.column_stack([np.full(10, 5.0), np.arange(10.0)])
    lifted = _lift(X).transform(canonical_rows(X)).matrix().toarray()
    assert np.isfinite(lifted).all()
    np.testing.assert_array_equal(lifted[:, 2], 0)


def test_a_new_column_was_zero_before() -> None:
    X, _ = dense_stream(3, 40, 4)
    early, late = X[:20].copy(), X[20:]
    early[:, 3] = 0
    lift, expected = _lift(early[:, :3]), _lift(np.vstack([early, late]))
    lift.learn(canonical_rows(late), np.ones(20))
    np.testing.assert_allclose(lift.mean, expected.mean, rtol=1e-12)
    np.testing.assert_allclose(lift.squares, expected.squares, rtol=1e-10)
    narrow = lift.transform(canonical_rows(X[:, :3]))
    assert narrow.width == 6


def test_wide_rows_stay_sparse_and_empty_ones_empty() -> None:
    X = sp.random(20, STANDARDISED_COLUMNS + 1, 0.005, format="csr", random_state=0)
    X.resize(21, X.shape[1])
    lift = _lift(X)
    lifted = lift.transform(canonical_rows(X))
    assert lifted.data.size == X.nnz + 2 * 20
    assert lifted.empty.tolist() == [False] * 20 + [True]
    scale = np.sqrt((X.data**2).sum() / 21)
    assert np.sqrt(lift.squares[0] / lift.rows) == pytest.approx(scale)
    assert not lift.standardises(3)  # decided by the first rows


def test_what_cannot_be_lifted_is_named() -> None:
    X, _ = dense_stream(4, 10)
    lift = _lift(X)
    with pytest.raises(ValueError, match=r"X contains 1e\+200; euclidean rows must lie within \+-1e\+100"):
        lift.transform(canonical_rows(np.where(np.eye(10, 4), 1e200, X)))
    with pytest.raises(ValueError, match=r"X has 5000 columns; .* start a new model"):
        lift.transform(canonical_rows(sp.csr_matrix((1, 5000))))


def test_the_state_continues() -> None:
    X, _ = text_stream(5, 40)
    lift = _lift(X[:20])
    other = EuclideanLift.from_state(lift.state())
    for each in (lift, other):
        each.learn(canonical_rows(X[20:]), np.ones(20))
    np.testing.assert_array_equal(lift.transform(canonical_rows(X)).data, other.transform(canonical_rows(X)).data)
    assert EuclideanLift.from_state(EuclideanLift().state()).standardised is None

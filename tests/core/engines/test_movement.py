"""The shift against its definition, computed from the states before and after. For every engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.core.conftest import DISTANCES, MakeClassifier
from tests.core.inspecting import prototypes
from tests.core.streams import text_stream


def _moves(model: Any, X: Any, y: Any) -> tuple[dict[str, Any], list[tuple[Any, float, float]]]:
    """Learns; the call's statistics, and (label, mass, 1 - cosine) of every old prototype that attracted something."""
    before = {p.id: p for p in prototypes(model)}
    stats = dict(model.fit_batch(X, y))
    moves = []
    for after in prototypes(model):
        old = before.get(after.id)
        if old is not None and not np.array_equal(
            old.centre / max(old.mass, 1e-300), after.centre / max(after.mass, 1e-300)
        ):
            cosine = old.centre @ after.centre / np.linalg.norm(old.centre) / np.linalg.norm(after.centre)
            moves.append((after.label, after.mass, 1 - cosine))
    return stats, moves


@DISTANCES
@pytest.mark.parametrize("update_rows", ["auto", 1, 300], ids=["many groups", "a row a group", "one group"])
@pytest.mark.parametrize(
    "parameters", [{}, {"half_life": 80.0}, {"soft_type": "softmax"}, {"lambda_penalty": 0.0}], ids=str
)
def test_shift_is_the_mass_weighted_mean_distance_moved(
    make_classifier: MakeClassifier, parameters: dict[str, Any], update_rows: Any, distance: str
) -> None:
    X, y = text_stream(0, 700)
    model = make_classifier(dtype="float64", distance=distance, update_rows=update_rows, **parameters)
    model.fit_batch(X[:400], y[:400])
    for first in range(400, 700, 60):  # no maintenance in between
        stats, moves = _moves(model, X[first : first + 60], y[first : first + 60])
        masses, shifts = np.array([m for _, m, _ in moves]), np.array([s for _, _, s in moves])
        assert stats["shift"] == pytest.approx(masses @ shifts / masses.sum(), rel=1e-6, abs=1e-12)
        assert stats["shift_max"] == pytest.approx(shifts.max(), rel=1e-6, abs=1e-12)


def test_shift_is_precise_enough_in_float32(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(1, 1000)
    model = make_classifier()
    model.fit_batch(X[:900], y[:900])
    stats, moves = _moves(model, X[900:], y[900:])
    masses, shifts = np.array([m for _, m, _ in moves]), np.array([s for _, _, s in moves])
    assert stats["shift"] == pytest.approx(masses @ shifts / masses.sum(), rel=1e-3)


def test_a_row_alone_moves_its_class_only(make_classifier: MakeClassifier) -> None:
    model = make_classifier(idf=False, dtype="float64")
    model.fit_batch(np.eye(3), ["a", "b", "c"])
    stats = model.fit_batch([[1.0, 1.0, 0.0]], ["a"])
    unit = np.array([1, 1, 0]) / np.sqrt(2)
    after = np.array([1, 0, 0]) + unit
    assert stats["shift"] == stats["shift_max"] == pytest.approx(1 - after[0] / np.linalg.norm(after))
    assert model.moved_classes(5) == [("a", pytest.approx(stats["shift"]))]


def test_newborn_prototypes_do_not_count(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    stats = model.fit_batch(np.eye(3)[[0, 0, 1]], ["a", "a", "b"])
    assert stats["shift"] == stats["shift_max"] == 0
    assert model.moved_classes(5) == []


def test_the_same_row_again_moves_nothing(make_classifier: MakeClassifier) -> None:
    model = make_classifier(idf=False)
    for _ in range(3):
        stats = model.fit_batch([[3.0, 1.0]], ["a"])
        assert stats["shift"] == pytest.approx(0, abs=1e-6)


def test_moved_classes_are_sorted_and_weighted_by_mass(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(2, 700, modes=3)
    model = make_classifier(dtype="float64")
    model.fit_batch(X[:650], y[:650])
    _, moves = _moves(model, X[650:], y[650:])
    expected = {}
    for label in {label for label, _, _ in moves}:
        masses, shifts = np.array([(m, s) for other, m, s in moves if other == label]).T
        expected[label] = masses @ shifts / masses.sum()
    moved = model.moved_classes(99)
    assert [label for label, _ in moved] == sorted(expected, key=lambda label: -expected[label])
    np.testing.assert_allclose([shift for _, shift in moved], sorted(expected.values(), reverse=True), rtol=1e-6)
    assert model.moved_classes(2) == moved[:2]


def test_predicting_leaves_moved_classes_and_reports_no_shift(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(3, 300)
    model = make_classifier()
    model.fit_batch(X[:200], y[:200])
    model.fit_batch(X[200:], y[200:])
    moved = model.moved_classes(3)
    assert len(moved) == 3
    assert model.learn(X, None).stats["shift"] == 0
    assert model.moved_classes(3) == moved


def test_maintenance_in_a_call_is_no_movement(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(4, 1000)
    model, other = (
        make_classifier(dtype="float64"),
        make_classifier(dtype="float64", merge_threshold=0, truncation_threshold=0),
    )
    for each in (model, other):
        each.fit_batch(X, y)
    crossing = X[:60], y[:60]
    assert model.fit_batch(*crossing)["shift"] == pytest.approx(other.fit_batch(*crossing)["shift"], rel=0.2)

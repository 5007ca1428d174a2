"""Merging, pruning, truncation, exact norms and rescaling: every 1,024 learned rows. For every engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from tests.core.conftest import MakeClassifier
from tests.core.inspecting import Prototype, prototypes, shared
from tests.core.streams import text_stream, two_faced_class

FILLER = 1024


def _fill(model: Any, width: int, rows: int = FILLER) -> dict[str, Any]:
    """Rows of a class of its own in a column of its own: they only bring maintenance about."""
    X = sp.csr_matrix((np.ones(rows), (np.arange(rows), np.full(rows, width - 1))), (rows, width))
    return dict(model.fit_batch(X, ["filler"] * rows))


def _of(model: Any, label: Any) -> list[Prototype]:
    return [p for p in prototypes(model) if p.label == label]


def _three_rays(make_classifier: MakeClassifier, **parameters: Any) -> Any:
    """A model with three prototypes of class "a" at 0, 20 and 90 degrees: cosines .94, 0 and .34."""
    angles = np.radians([0, 20, 90])
    rows = np.column_stack([np.cos(angles), np.sin(angles), np.zeros(3)])
    model = make_classifier(k_init=3, max_iters=1, soft=False, idf=False, lambda_penalty=0.0, **parameters)
    model.fit(np.vstack([rows, [[0, 0, 1.0]]]), ["a", "a", "a", "filler"])
    return model


def test_near_prototypes_of_a_class_merge_masses_and_centres_add(make_classifier: MakeClassifier) -> None:
    model = _three_rays(make_classifier, merge_threshold=0.1)
    before = _of(model, "a")
    assert len(before) == 3
    assert _fill(model, 3)["num_merged"] == 1
    after = _of(model, "a")
    assert len(after) == 2
    assert sum(p.mass for p in after) == pytest.approx(sum(p.mass for p in before))
    centres = np.sum([p.centre for p in before], axis=0)
    np.testing.assert_allclose(np.sum([p.centre for p in after], axis=0), centres, rtol=1e-6)
    for p in after:
        assert p.square == pytest.approx(p.centre @ p.centre, rel=1e-6)


@pytest.mark.parametrize(
    ("parameters", "left"),
    [
        ({"merge_threshold": None}, 3),
        ({"merge_threshold": 0.0}, 3),
        ({"merge_threshold": 0.05}, 3),
        ({"merge_threshold": 0.07}, 2),
        ({"merge_threshold": 1.0}, 1),
        # distances .06, .66 and 1.0; their mean .57
        ({"merge_threshold": 0.10, "relative_merge": True}, 3),
        ({"merge_threshold": 0.12, "relative_merge": True}, 2),
        ({"merge_threshold": 1.0, "percentile_threshold": 0.0}, 2),
        ({"merge_threshold": 1.0, "percentile_threshold": 1.0}, 1),
        ({"merge_threshold": 0.05, "percentile_threshold": 1.0}, 3),
        ({"percentile_threshold": 0.9}, 3),
    ],
    ids=str,
)
def test_the_thresholds_say_which_prototypes_merge(
    make_classifier: MakeClassifier, parameters: dict[str, Any], left: int
) -> None:
    model = _three_rays(make_classifier, **parameters)
    _fill(model, 3)
    assert len(_of(model, "a")) == left


def test_prototypes_of_different_classes_never_merge(make_classifier: MakeClassifier) -> None:
    model = make_classifier(merge_threshold=2.0)
    model.fit_batch(np.ones((2000, 3)), np.arange(2000) % 2)
    assert sorted(p.label for p in prototypes(model)) == [0, 1]


def test_light_prototypes_are_pruned_but_never_the_last_of_a_class(make_classifier: MakeClassifier) -> None:
    model = _three_rays(make_classifier, merge_threshold=0.0, half_life=50.0)
    heavy = [[1.0, 0.0, 0.0]] * 20
    model.fit_batch(heavy, ["a"] * 20)
    stats = _fill(model, 3)  # 2^-20 of every mass is left
    assert stats["pruned"] == 2
    (last,) = _of(model, "a")
    assert last.centre.argmax() == 0
    assert last.mass < 1e-3
    assert model.predict([[1.0, 0.1, 0.0]]).tolist() == ["a"]


def test_min_weight_zero_prunes_nothing(make_classifier: MakeClassifier) -> None:
    model = _three_rays(make_classifier, merge_threshold=0.0, half_life=50.0, min_weight=0.0)
    assert _fill(model, 3)["pruned"] == 0
    assert len(_of(model, "a")) == 3


@pytest.mark.parametrize(("truncation", "left"), [(0.0, 4), (1e-4, 4), (0.005, 3), (0.02, 2)])
def test_entries_of_grown_prototypes_that_are_small_beside_the_largest_are_dropped(
    make_classifier: MakeClassifier, truncation: float, left: int
) -> None:
    model = make_classifier(k_init=1, idf=False, lambda_penalty=0.0, truncation_threshold=truncation)
    row = [[1.0, 0.5, 0.01, 1e-3, 0.0]]
    model.fit_batch(row * FILLER, ["old"] * FILLER)
    (old,) = _of(model, "old")
    assert np.count_nonzero(old.centre) == left
    assert old.square == pytest.approx(old.centre @ old.centre, rel=1e-4)


def test_the_mutual_information_of_a_word_seen_once_does_not_keep_it(make_classifier: MakeClassifier) -> None:
    model = make_classifier(k_init=1, idf=False, truncation_threshold=0.01)
    model.fit_batch([[1.0, 0.5, 0.2, 0.0]], ["old"])
    (young,) = _of(model, "old")
    assert np.count_nonzero(young.centre) == np.count_nonzero(young.information) == 3
    model.fit_batch([[1.0, 0.5, 0.0, 0.0]] * FILLER, ["old"] * FILLER)
    (old,) = _of(model, "old")
    assert np.flatnonzero(old.centre).tolist() == np.flatnonzero(old.information).tolist() == [0, 1]


def test_maintenance_makes_norms_exact(make_classifier: MakeClassifier) -> None:
    model = make_classifier(k_init=1, idf=False)
    model.fit_batch([[1.0, 0.5, 0.01]] * 4 * FILLER, ["one"] * 4 * FILLER)
    (one,) = _of(model, "one")
    assert one.square == pytest.approx(one.centre @ one.centre, rel=1e-7)


def test_young_prototypes_keep_their_small_entries(make_classifier: MakeClassifier) -> None:
    model = make_classifier(k_init=1, idf=False, lambda_penalty=0.0, truncation_threshold=0.5)
    model.fit_batch([[1.0, 0.01, 0.0]] * 99, ["young"] * 99)
    _fill(model, 3)
    assert np.count_nonzero(_of(model, "young")[0].centre) == 2
    model.fit_batch([[1.0, 0.01, 0.0]], ["young"])
    _fill(model, 3)
    assert np.count_nonzero(_of(model, "young")[0].centre) == 1


def test_norms_stay_exact_over_a_long_stream(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(0, 3000)
    model = make_classifier(half_life=300.0)
    for first in range(0, 3000, 300):
        model.fit_batch(X[first : first + 300], y[first : first + 300])
        for p in prototypes(model):
            assert p.square == pytest.approx(p.centre @ p.centre, rel=1e-4)


def test_rescaling_changes_no_prediction(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(1, 3000)
    model = make_classifier(half_life=60.0, dtype="float64")
    growing: list[float] = []
    for first in range(0, 3000, 100):
        learned = model.learn(X[first : first + 100], y[first : first + 100])
        assert np.isfinite(learned.scores).all()
        growing.append(shared(model).omega)
    assert max(growing) > 1e3
    assert np.diff(growing).min() < 0  # it was divided out
    assert shared(model).rows == pytest.approx(1 / (1 - 0.5 ** (1 / 60)), rel=0.1)
    assert model.score(X[2900:], y[2900:]) > 0.85


@pytest.mark.parametrize("half_life", [1.0, 5.0, 12.0])
def test_very_short_half_lives_stay_finite(make_classifier: MakeClassifier, half_life: float) -> None:
    X, y = text_stream(2, 2500)
    model = make_classifier(half_life=half_life)
    for first in range(0, 2500, 100):
        model.fit_batch(X[first : first + 100], y[first : first + 100])
    assert np.isfinite([p.square for p in prototypes(model)]).all()
    assert np.isfinite(model.decision_function(X[:50])).all()


def test_maintenance_comes_after_rows_not_after_calls(make_classifier: MakeClassifier) -> None:
    X, y = two_faced_class(4, 1050)
    merged = []
    for batch in (10, 1050):
        model = make_classifier(merge_threshold=0.98, update_rows=1)
        merged.append(
            sum(model.fit_batch(X[f : f + batch], y[f : f + batch])["num_merged"] for f in range(0, 1050, batch))
        )
    assert merged[0] == merged[1] > 0


def test_what_is_freed_is_used_again(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(5, 8000, modes=4)
    model = make_classifier(half_life=15.0, min_weight=0.5, k_init=4)
    held = []
    for first in range(0, 8000, 500):
        model.fit_batch(X[first : first + 500], y[first : first + 500])
        held.append(model.nbytes)
    assert max(p.id for p in prototypes(model)) > 2 * len(prototypes(model))  # many have come and gone
    assert max(held[8:]) <= 1.5 * max(held[:8])

"""Rows of no known class are answered unknown, about the promised share of the others too, and nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

from prototide.core import FastKMeansClassifier
from prototide.core.engines.answers import OwnBest
from prototide.core.novelty import LEAST_ROWS, Novelty
from tests.core.conftest import MakeClassifier
from tests.core.inspecting import fingerprint
from tests.core.streams import text_stream

KNOWN, COLUMNS = 6, 120


def known_and_strange(seed: int, rows: int, strange: int) -> tuple[sp.csr_matrix, NDArray[np.int64], sp.csr_matrix]:
    """Rows of known classes, their labels; rows of classes that were never seen."""
    X, y = text_stream(seed, rows + 3 * strange, features=COLUMNS, classes=2 * KNOWN, modes=1)
    known = np.flatnonzero(y < KNOWN)
    return X[known], y[known], X[np.flatnonzero(y >= KNOWN)[:strange]]


@pytest.fixture(name="model")
def _model(make_classifier: MakeClassifier) -> FastKMeansClassifier:
    return make_classifier(novelty="auto")


def learn_in_batches(model: FastKMeansClassifier, X: sp.csr_matrix, y: Any, size: int = 100) -> list[Any]:
    return [label for i in range(0, len(y), size) for label in model.learn(X[i : i + size], y[i : i + size]).labels]


def test_strange_rows_are_unknown_and_few_others(model: FastKMeansClassifier) -> None:
    X, y, strange = known_and_strange(0, 8000, 500)
    half = len(y) // 2
    learn_in_batches(model, X[:half], y[:half])
    labels, unknown = model.predict(X[half:], return_unknown=True)
    assert labels.tolist() == model.predict(X[half:]).tolist()
    assert unknown.mean() < 0.03
    assert model.predict(strange, return_unknown=True)[1].mean() > 10 * unknown.mean()
    scores = np.concatenate([model.novelty_scores(X[half:]), model.novelty_scores(strange)])
    is_strange = np.arange(scores.size) >= len(y) - half
    assert auroc(scores, is_strange) > 0.9


def auroc(scores: NDArray[np.float64], positive: NDArray[np.bool_]) -> float:
    """Share of (positive, negative) pairs in which the positive one scores higher."""
    negative = np.sort(scores[~positive])
    return float(np.searchsorted(negative, scores[positive]).mean() / negative.size)


@pytest.mark.parametrize("quantile", [0.01, 0.05, 0.2])
def test_the_share_of_known_rows_called_unknown_is_the_promised_one(quantile: float) -> None:
    random = np.random.default_rng(1)
    rows = 60_000
    slots = random.integers(0, 40, rows).astype(np.int32)
    scores = slots / 20 + (0.1 + slots / 100) * random.standard_gamma(4.0, rows)  # each its own place, width; skewed
    novelty = Novelty(quantile, None)
    unknown = novelty.learn(slots, slots.astype(np.int64), scores, OwnBest(slots, slots.astype(np.int64), scores))
    late = unknown[rows // 2 :]
    assert late.mean() == pytest.approx(quantile, rel=0.15)
    each = np.bincount(slots[rows // 2 :], late, 40) / np.bincount(slots[rows // 2 :], minlength=40)
    assert each.max() < 4 * quantile


def test_a_young_prototype_is_judged_by_the_numbers_of_all() -> None:
    novelty = Novelty(0.01, None)
    scores = 1 + 0.1 * np.random.default_rng(2).standard_normal(5000)
    slots, ids = np.zeros(5000, np.int32), np.zeros(5000, np.int64)
    novelty.learn(slots, ids, scores, OwnBest(slots, ids, scores))
    newborn = novelty.scores(np.array([7], np.int32), np.array([99]), np.array([0.5]))
    assert newborn[0] == pytest.approx(5, rel=0.2)
    assert novelty.unknown(newborn).all()
    # the next tenant of a slot does not inherit
    assert novelty.scores(slots[:1], ids[:1] + 1, np.array([0.5]))[0] == newborn[0]


def test_what_is_usual_follows_a_drift() -> None:
    novelty = Novelty(0.01, None)
    random = np.random.default_rng(3)
    scores = np.concatenate([1.0 + 0.1 * random.standard_normal(3000), 0.2 + 0.1 * random.standard_normal(3000)])
    slots, ids = np.zeros(6000, np.int32), np.zeros(6000, np.int64)
    unknown = novelty.learn(slots, ids, scores, OwnBest(slots, ids, scores))
    assert unknown[3000:3010].all()
    assert unknown[4500:].mean() < 0.03


def test_no_row_is_unknown_before_enough_were_learned(model: FastKMeansClassifier) -> None:
    X, y, strange = known_and_strange(4, 400, 50)
    learn_in_batches(model, X[: int(LEAST_ROWS) // 2], y[: int(LEAST_ROWS) // 2])
    assert not model.predict(strange, return_unknown=True)[1].any()
    assert None not in model.learn(strange, None).labels


def test_before_anything_is_known_to_be_usual_nothing_is_novel(make_classifier: MakeClassifier) -> None:
    X, y, _ = known_and_strange(0, 50, 0)
    model = make_classifier()
    model.fit_batch(X, y)
    model.set_params(novelty="auto")
    assert not model.novelty_scores(X).any()
    assert not model.predict(X, return_unknown=True)[1].any()


def test_learn_and_predict_agree_on_what_is_unknown(model: FastKMeansClassifier) -> None:
    X, y, strange = known_and_strange(5, 2000, 200)
    learn_in_batches(model, X, y)
    both = sp.vstack([X[:200], strange, sp.csr_matrix((1, COLUMNS))]).tocsr()
    labels, unknown = model.predict(both, return_unknown=True)
    told = model.learn(both, None)
    assert unknown[-1]
    assert unknown.sum() > 20
    assert told.labels == [None if u else label for label, u in zip(labels.tolist(), unknown, strict=True)]


def test_a_row_rejected_as_novel_keeps_score_prototype_and_best_classes(make_classifier: MakeClassifier) -> None:
    X, y, strange = known_and_strange(6, 2000, 100)
    strict, plain = make_classifier(novelty=0.3), make_classifier()
    learn_in_batches(strict, X, y)
    learn_in_batches(plain, X, y)
    rejecting, answering = strict.learn(strange, None, top_k=3), plain.learn(strange, None, top_k=3)
    rejected = [label is None for label in rejecting.labels]
    assert sum(rejected) > 50
    np.testing.assert_array_equal(rejecting.scores, answering.scores)
    np.testing.assert_array_equal(rejecting.prototypes, answering.prototypes)
    assert rejecting.top_labels == answering.top_labels
    np.testing.assert_array_equal(rejecting.top_probs, answering.top_probs)
    kept = [label for label, out in zip(rejecting.labels, rejected, strict=True) if not out]
    assert kept == [label for label, out in zip(answering.labels, rejected, strict=True) if not out]


def test_novelty_changes_nothing_that_is_learned(make_classifier: MakeClassifier) -> None:
    X, y, _ = known_and_strange(7, 1500, 10)
    states = []
    for novelty in (None, "auto", 0.5):
        model = make_classifier(novelty=novelty)
        learn_in_batches(model, X, y)
        content = fingerprint(model, parameters=False)
        states.append({name: value for name, value in content.items() if not name.startswith("novelty.")})
    assert states[0] == states[1] == states[2]


def test_predicting_learns_nothing_about_what_is_usual(model: FastKMeansClassifier) -> None:
    X, y, strange = known_and_strange(8, 1000, 100)
    learn_in_batches(model, X, y)
    before = fingerprint(model)
    model.predict(strange, return_unknown=True)
    model.novelty_scores(strange)
    model.learn(strange, None)
    assert fingerprint(model) == before


def test_a_restored_model_calls_the_same_rows_unknown(model: FastKMeansClassifier) -> None:
    X, y, strange = known_and_strange(9, 2000, 100)
    learn_in_batches(model, X[:1000], y[:1000])
    copy = type(model).from_state(*model.state())
    copy.set_params(n_threads=model.n_threads)
    assert learn_in_batches(copy, X[1000:], y[1000:]) == learn_in_batches(model, X[1000:], y[1000:])
    assert copy.novelty_scores(strange).tolist() == model.novelty_scores(strange).tolist()
    assert fingerprint(copy) == fingerprint(model)


def test_after_fit_known_rows_are_known(make_classifier: MakeClassifier) -> None:
    X, y, strange = known_and_strange(10, 4000, 200)
    half = len(y) // 2
    model = make_classifier(novelty=0.05, max_iters=5).fit(X[:half], y[:half])
    assert model.predict(X[half:], return_unknown=True)[1].mean() < 0.15
    assert model.predict(strange, return_unknown=True)[1].mean() > 0.3


def test_without_novelty_only_rows_without_features_are_unknown(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    model.fit_batch(np.eye(3), ["a", "b", "b"])
    labels, unknown = model.predict(np.array([[1.0, 0, 0], [0, 0, 0]]), return_unknown=True)
    assert labels[0] == "a"
    assert unknown.tolist() == [False, True]
    with pytest.raises(ValueError, match="novelty=None keeps no record"):
        model.novelty_scores(np.eye(3))


@pytest.mark.parametrize("novelty", [0, -0.1, 0.6, 1, float("nan"), "often", True, [0.1]])
def test_quantiles_that_make_no_sense_are_named(novelty: Any) -> None:
    with pytest.raises(
        ValueError, match=r"novelty=.* is not allowed: it must be None, 'auto' or a number from 1e-6 to 0\.5"
    ):
        FastKMeansClassifier(novelty=novelty).fit_batch(np.eye(2), [0, 1])

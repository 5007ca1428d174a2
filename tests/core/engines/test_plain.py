"""The plain engine by itself: groups of rows, ids, growth."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import cosine

from prototide.core import FastKMeansClassifier
from prototide.core.parameters import rule_of
from tests.core.conftest import MakeClassifier
from tests.core.inspecting import prototypes, shared
from tests.core.streams import text_stream, two_faced_class


def test_a_score_is_the_weighted_cosine_plus_the_correction(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(0, 400)
    model = make_classifier(dtype="float64", half_life=150.0)
    model.fit_batch(X, y)
    common, tau = shared(model), rule_of(model.get_params()).tau
    idf = np.log((1 + common.rows) / (1 + common.document_frequency)) + 1
    rows = X[:30].toarray() * idf
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    held = prototypes(model)
    expected = np.full((30, 5), -np.inf)
    for p in held:
        score = [tau * (1 - cosine(x, p.centre)) + p.correction @ x for x in rows]
        expected[:, p.label] = np.maximum(expected[:, p.label], score)
    np.testing.assert_allclose(model.decision_function(X[:30]), expected, rtol=1e-9, atol=1e-9)
    learned = model.learn(X[:30], None)
    by_id = {p.id: p.label for p in held}
    assert [by_id[number] for number in learned.prototypes] == learned.labels


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16", "float16"])
def test_precisions_differ_by_their_rounding(make_classifier: MakeClassifier, dtype: str) -> None:
    X, y = text_stream(1, 600)
    exact, model = make_classifier(dtype="float64"), make_classifier(dtype=dtype)
    for each in (exact, model):
        each.fit_batch(X[:500], y[:500])
    tolerance = {"float64": 0, "float32": 1e-4, "float16": 0.02, "bfloat16": 0.15}[dtype]
    np.testing.assert_allclose(model.decision_function(X[500:]), exact.decision_function(X[500:]), atol=tolerance)


def test_softmax_hard_and_linear_share_rows_differently(make_classifier: MakeClassifier) -> None:
    rows = np.array([[1.0, 0, 0], [0.96, 0.28, 0], [0, 0, 1.0]])
    gained = {}
    for name, parameters in (("hard", {"soft": False}), ("linear", {}), ("softmax", {"soft_type": "softmax"})):
        model = make_classifier(
            k_init=2, max_iters=1, idf=False, lambda_penalty=0.0, merge_threshold=0, dtype="float64", **parameters
        )
        model.fit(rows, ["a", "a", "other"])
        before = {p.id: p for p in prototypes(model) if p.label == "a"}
        x = np.array([0.99, 0.14, 0.0])
        x /= np.linalg.norm(x)
        model.fit_batch([x], ["a"])
        cosines = {number: 1 - cosine(x, p.centre) for number, p in before.items()}
        best = max(cosines.values())
        kernel = {
            "hard": {number: float(c == best) for number, c in cosines.items()},
            "linear": {number: max(0.0, 0.1 + c - best) for number, c in cosines.items()},
            "softmax": {number: np.exp(10 * (c - best)) for number, c in cosines.items()},
        }[name]
        gained[name] = {p.id: p.mass - before[p.id].mass for p in prototypes(model) if p.label == "a"}
        for number, gain in gained[name].items():
            assert gain == pytest.approx(kernel[number] / sum(kernel.values()), abs=1e-9)
    assert max(gained["hard"].values()) == 1


def test_ids_are_never_used_twice_and_last_as_long_as_the_prototype(make_classifier: MakeClassifier) -> None:
    X, y = two_faced_class(0, 6000)
    model = make_classifier(half_life=40.0, merge_threshold=0.3)
    where: dict[int, int] = {}
    alive: set[int] = set()
    dead: set[int] = set()
    for first in range(0, 6000, 200):
        model.fit_batch(X[first : first + 200], y[first : first + 200])
        now = {p.id: p.label for p in prototypes(model)}
        assert not dead & set(now)
        assert all(where.setdefault(number, label) == label for number, label in now.items())
        dead |= alive - set(now)
        alive = set(now)
    assert len(where) >= len(alive)


def test_born_is_what_appeared(make_classifier: MakeClassifier) -> None:
    X, y = two_faced_class(1, 3000)
    model = make_classifier(merge_threshold=0.5, half_life=60.0)
    there = 0
    for first in range(0, 3000, 100):
        stats = model.fit_batch(X[first : first + 100], y[first : first + 100])
        there += stats["born"] - stats["pruned"] - stats["num_merged"]
        assert stats["active_centroids"] == there == len(prototypes(model))


def test_the_group_grows_with_the_model(make_classifier: MakeClassifier) -> None:
    # rows of one call see what earlier groups of the call have learned: the first rows one by one
    model = make_classifier()
    labels = model.learn(np.eye(4)[np.tile(np.arange(4), 3)], np.tile(np.arange(4), 3)).labels
    assert labels == [None, *labels[1:4], 0, 1, 2, 3, 0, 1, 2, 3]


def test_a_large_group_is_predicted_before_any_of_it_is_learned() -> None:
    model = FastKMeansClassifier(update_rows=100, n_threads=1)
    assert model.learn(np.eye(2)[[0, 1] * 50], ["a", "b"] * 50).labels == [None] * 100
    assert model.learn(np.eye(2)[[0, 1] * 50], None).labels == ["a", "b"] * 50


def test_blocks_of_scoring_do_not_change_answers(
    make_classifier: MakeClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, y = text_stream(2, 800, classes=20)
    whole = make_classifier()
    answers = [whole.learn(X[first : first + 400], y[first : first + 400], top_k=3) for first in (0, 400)]
    monkeypatch.setattr("prototide.core.engines.plain.BLOCK_BYTES", 10_000)
    blocks = make_classifier()
    for first, expected in zip((0, 400), answers, strict=True):
        learned = blocks.learn(X[first : first + 400], y[first : first + 400], top_k=3)
        assert (learned.labels, learned.top_labels, learned.stats) == (
            expected.labels,
            expected.top_labels,
            expected.stats,
        )


def test_a_class_that_grows_inside_one_group_loses_no_attraction(make_classifier: MakeClassifier) -> None:
    X, y = two_faced_class(0, 3000, sides=8)
    one_group = {"k_init": 8, "update_rows": 3000, "merge_threshold": 0, "truncation_threshold": 0}
    model = make_classifier(**one_group, lambda_penalty=0.0, soft_type="softmax", temperature=5.0)
    model.fit_batch(X[:40], y[:40])
    model.fit_batch(X[40:], y[40:])
    held = prototypes(model)
    assert max(sum(p.label == c for p in held) for c in (0, 1)) > 3
    for p in held:
        assert p.square == pytest.approx(p.centre @ p.centre, rel=1e-4)

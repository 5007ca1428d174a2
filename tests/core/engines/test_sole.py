"""`fit_batch` where nothing need be scored, against the plain engine, which scores."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from prototide.core import FastKMeansClassifier
from tests.core.conftest import PlainClassifier
from tests.core.inspecting import fingerprint, prototypes, shared
from tests.core.streams import dense_stream, text_stream, two_faced_class

RULES: list[dict[str, Any]] = [
    {},
    {"idf": True},
    {"half_life": 50},
    {"idf": True, "half_life": 50, "forget_classes": True, "min_weight": 0.2},
    {"update_rows": 7},
    {"truncation_threshold": 0.05},
    {"dtype": "float64", "soft": True},
    {"distance": "euclidean"},
]


def batches(rule: dict[str, Any]) -> list[tuple[Any, list[Any], Any]]:
    """Duplicates, an empty row, unlabelled rows, weights, one row, no row, wider rows, new classes late."""
    if rule.get("distance") == "euclidean":
        X, y = dense_stream(3, 400)
        X = sp.csr_matrix(X)
        wide = X[:0]
    else:
        X, y = text_stream(3, 1400, features=60, classes=40)
        wide = sp.hstack([X[:30], X[30:60]]).tocsr()
    labels = [f"c{c}" for c in y]
    weights = np.random.default_rng(0).random(len(labels)) * 3
    weights[5] = 0
    unlabelled: list[Any] = [label if i % 3 else None for i, label in enumerate(labels[100:200])]
    half = len(labels) // 2
    twice = sp.vstack([X[:20], X[:20], X[:20] * 0 if wide.shape[0] else X[:20]]).tocsr()
    cut = [
        (X[:1], labels[:1], None), (X[:0], [], None), (X[:100], labels[:100], weights[:100]),
        (X[100:200], unlabelled, None), (twice, labels[:20] * 3, None), (X[100:150], [None] * 50, None),
        (X[200:half], labels[200:half], weights[200:half]),
    ]  # fmt: skip
    if wide.shape[0]:
        cut += [(wide, [f"late{i % 7}" for i in range(30)], None)]
    return [*cut, (X[half:], labels[half:], None)]


@pytest.mark.parametrize("rule", RULES, ids=str)
def test_the_model_is_the_one_of_the_engine_that_scores(rule: dict[str, Any]) -> None:
    common: dict[str, Any] = {"k_init": 1, "lambda_penalty": 0.0, "novelty": None} | rule
    ours, theirs = FastKMeansClassifier(n_threads=1, **common), PlainClassifier(n_threads=1, **common)
    for X, labels, weight in batches(rule):
        one, other = (model.fit_batch(X, labels, sample_weight=weight) for model in (ours, theirs))
        assert one == pytest.approx(other, rel=2e-4, abs=1e-5)
    assert len(prototypes(ours)) == len(prototypes(theirs)) > 2
    for mine, plain in zip(prototypes(ours), prototypes(theirs), strict=True):
        assert (mine.id, mine.label) == (plain.id, plain.label)
        assert mine.mass == pytest.approx(plain.mass, rel=1e-9)
        assert mine.square == pytest.approx(plain.square, rel=1e-4)
        np.testing.assert_allclose(mine.centre, plain.centre, rtol=1e-4, atol=1e-5)
    assert shared(ours).rows == pytest.approx(shared(theirs).rows)
    np.testing.assert_allclose(shared(ours).document_frequency, shared(theirs).document_frequency)
    assert ours.classes_.tolist() == theirs.classes_.tolist()


@pytest.mark.parametrize("rule", RULES[:4], ids=str)
def test_what_follows_learns_on_as_if_it_had_been_scored(rule: dict[str, Any]) -> None:
    models = [
        kind(n_threads=1, k_init=1, lambda_penalty=0.0, novelty=None, **rule)
        for kind in (FastKMeansClassifier, PlainClassifier)
    ]
    X, y = two_faced_class(4, 900)
    for model in models:
        model.fit_batch(X[:300], y[:300])
        model.set_params(k_init=3, lambda_penalty=0.1)
        model.learn(X[300:600], y[300:600])
        model.set_params(k_init=1, lambda_penalty=0.0)  # classes keep the prototypes that they have
        model.fit_batch(X[600:800], y[600:800])
    ours, theirs = models
    assert len(prototypes(ours)) > 2
    assert ours.predict(X[800:]).tolist() == theirs.predict(X[800:]).tolist()
    np.testing.assert_allclose(ours.decision_function(X[800:]), theirs.decision_function(X[800:]), rtol=1e-3, atol=1e-4)


def test_the_same_bytes_with_any_number_of_threads_and_whenever_it_is_asked() -> None:
    X, y = text_stream(5, 4000, features=500, classes=200)
    found = []
    for threads, asked in ((1, False), (2, False), (2, True)):
        model = FastKMeansClassifier(n_threads=threads, k_init=1, lambda_penalty=0.0)
        for first in range(0, 4000, 900):
            model.fit_batch(X[first : first + 900], y[first : first + 900])
            if asked:
                model.predict(X[:50])
        found.append(fingerprint(model, parameters=False))
    assert found[0] == found[1] == found[2]

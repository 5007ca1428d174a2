"""predict, predict_proba, decision_function and predict_top agree. For every engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from tests.core.conftest import MakeClassifier
from tests.core.streams import text_stream

EVERY_FORM = pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"soft_type": "softmax"},
        {"soft_type": "softmax", "temperature": 0.01},
        {"soft_type": "softmax", "temperature": 1e-4},
        {"soft_type": "softmax", "temperature": 100.0},
        {"soft": False},
        {"distance": "euclidean"},
        {"dtype": "bfloat16"},
        {"dtype": "float16", "soft_type": "softmax"},
        {"lambda_penalty": 0.0},
    ],
    ids=str,
)


@EVERY_FORM
def test_the_likeliest_class_is_the_predicted_one_and_rows_sum_to_one(
    make_classifier: MakeClassifier, parameters: dict[str, Any]
) -> None:
    X, y = text_stream(0, 500, classes=9)
    model = make_classifier(**parameters)
    model.fit_batch(X[:300], y[:300])
    rows = sp.vstack([X[300:], sp.csr_matrix((1, 40))])
    p = model.predict_proba(rows)
    assert p.shape == (201, 9)
    assert ((p >= 0) & (p <= 1)).all()
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-12)
    predicted = model.predict(rows)
    np.testing.assert_array_equal(model.classes_[p.argmax(axis=1)], predicted)
    points = ~(np.diff(rows.tocsr().indptr) == 0)
    scores = model.decision_function(rows)
    np.testing.assert_array_equal(model.classes_[scores.argmax(axis=1)][points], predicted[points])
    np.testing.assert_array_equal(np.argsort(-p, axis=1, kind="stable")[points, 0], scores.argmax(axis=1)[points])


@EVERY_FORM
def test_ties_agree_too(make_classifier: MakeClassifier, parameters: dict[str, Any]) -> None:
    model = make_classifier(**(parameters | {"lambda_penalty": 0.0}))
    model.fit_batch(np.eye(4), [3, 1, 2, 0])  # slots against the order of classes_
    rows = np.array([[1.0, 1.0, 0, 0], [0, 1.0, 1.0, 1.0], [1, 1, 1, 1], [0, 0, 0, 0]])
    np.testing.assert_array_equal(model.classes_[model.predict_proba(rows).argmax(axis=1)], model.predict(rows))
    top, _ = model.predict_top(rows[:3], 4)
    assert [labels[0] for labels in top] == model.predict(rows[:3]).tolist()
    assert [sorted(labels) for labels in top] == [[0, 1, 2, 3]] * 3


def test_a_tie_goes_to_the_older_prototype(make_classifier: MakeClassifier) -> None:
    model = make_classifier(lambda_penalty=0.0)
    model.fit_batch(np.eye(3), ["z", "y", "x"])
    assert model.predict([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]]).tolist() == ["z", "y"]


@EVERY_FORM
def test_the_top_classes_are_the_best_of_all(make_classifier: MakeClassifier, parameters: dict[str, Any]) -> None:
    X, y = text_stream(1, 600, classes=12)
    model = make_classifier(**parameters)
    model.fit_batch(X[:400], y[:400])
    top, probs = model.predict_top(X[400:], 5)
    everything = model.predict_proba(X[400:])
    scores = model.decision_function(X[400:])
    column = {label: at for at, label in enumerate(model.classes_.tolist())}
    assert probs.shape == (200, 5)
    assert (np.diff(probs, axis=1) <= 0).all()
    for row, labels in enumerate(top):
        assert len(set(labels)) == 5
        chosen = [column[label] for label in labels]
        np.testing.assert_array_equal(scores[row, chosen], np.sort(scores[row])[::-1][:5])
        np.testing.assert_allclose(probs[row], everything[row, chosen], atol=1e-6)  # 12 classes: all are within the 32


def test_top_probabilities_are_normalised_over_the_best_classes(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(2, 900, features=80, classes=60, modes=1)
    model = make_classifier(soft_type="softmax", temperature=50.0)
    model.fit_batch(X, y)
    _, one = model.predict_top(X[:50], 1)
    _, some = model.predict_top(X[:50], 32)
    _, every = model.predict_top(X[:50], 60)
    np.testing.assert_allclose(some.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(every.sum(axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(one[:, 0], some[:, 0])
    assert (every[:, 0] < some[:, 0]).all()


def test_more_top_classes_than_there_are_are_filled_up(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    model.fit_batch(np.eye(2), ["a", "b"])
    top, probs = model.predict_top([[2.0, 1.0]], 40)
    assert top == [["a", "b", *[None] * 38]]
    assert probs.shape == (1, 40)
    assert probs[0, 2:].tolist() == [0.0] * 38


def test_wrong_numbers_of_top_classes_are_refused(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    with pytest.raises(ValueError, match="k=0"):
        model.predict_top(np.eye(2), 0)
    with pytest.raises(ValueError, match="top_k=-1"):
        model.learn(np.eye(2), None, top_k=-1)
    assert model.learn(np.eye(2), None).top_labels is None


def test_reported_scores_are_those_of_the_winning_class(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(3, 300)
    model = make_classifier()
    model.fit_batch(X, y)
    learned = model.learn(X, None)
    np.testing.assert_allclose(learned.scores, model.decision_function(X).max(axis=1), rtol=1e-6)


def test_probabilities_of_a_row_know_nothing_of_its_own_label(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(4, 300)
    model, other = make_classifier(update_rows=500), make_classifier(update_rows=500)
    for each in (model, other):
        each.fit_batch(X[:200], y[:200])
    one, two = model.learn(X[200:], y[200:], top_k=3), other.learn(X[200:], (y[200:] + 1) % 5, top_k=3)
    np.testing.assert_array_equal(one.top_probs, two.top_probs)


def test_the_size_of_chunks_does_not_matter(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(5, 300)
    model = make_classifier(batch_size=7).fit(X, y)
    small = model.predict_proba(X), model.predict(X)
    model.set_params(batch_size=10240)
    np.testing.assert_array_equal(small[0], model.predict_proba(X))
    np.testing.assert_array_equal(small[1], model.predict(X))

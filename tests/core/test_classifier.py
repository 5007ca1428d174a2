"""The contract of the classifier: edges, what is not learned, then learning and predicting. For every engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.exceptions import NotFittedError

from tests.core.conftest import DISTANCES, MakeClassifier
from tests.core.inspecting import fingerprint, prototypes
from tests.core.streams import text_stream

# --- edges ---


@DISTANCES
def test_an_empty_batch_changes_nothing(make_classifier: MakeClassifier, distance: str) -> None:
    model = make_classifier(distance=distance)
    for _ in range(2):
        before = fingerprint(model)
        learned = model.learn(sp.csr_matrix((0, 40)), [], top_k=2)
        assert learned.labels == []
        assert learned.scores.shape == learned.prototypes.shape == (0,)
        assert learned.top_labels == []
        assert learned.top_probs is not None
        assert learned.top_probs.shape == (0, 2)
        assert learned.stats["rows"] == learned.stats["shift"] == 0
        assert fingerprint(model) == before
        model.fit_batch(*text_stream(0, 30))
    empty = sp.csr_matrix((0, 40))
    assert model.predict(empty).shape == (0,)
    assert model.predict_proba(empty).shape == model.decision_function(empty).shape == (0, 5)
    assert fingerprint(model.partial_fit(empty, [])) == fingerprint(model)


def test_an_empty_row_is_unknown_to_learn_and_the_heaviest_class_to_predict(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    model.fit_batch(np.eye(3), ["light", "heavy", "light too"], [1, 5, 1])
    before = fingerprint(model)
    learned = model.learn(np.zeros((1, 3)), ["light"], top_k=2)
    assert learned.labels == [None]
    assert learned.scores.tolist() == [0]
    assert learned.prototypes.tolist() == [-1]
    assert learned.top_labels == [[None, None]]
    assert learned.top_probs is not None
    assert learned.top_probs.tolist() == [[0, 0]]
    assert learned.stats["rows"] == 0
    assert fingerprint(model) == before
    assert model.predict(np.zeros((1, 3))).tolist() == ["heavy"]


def test_an_empty_row_of_an_unseen_class_does_not_make_the_class(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    model.fit_batch([[1.0, 0.0], [0.0, 0.0]], ["seen", "unseen"])
    assert model.classes_.tolist() == ["seen"]


def test_a_row_of_zeros_is_a_point_like_others_in_standardised_euclidean_space(make_classifier: MakeClassifier) -> None:
    X = np.array([[0.0, 0.0], [4.0, 4.0], [0.1, 0.0], [4.0, 4.1]])
    model = make_classifier(distance="euclidean")
    assert model.fit_batch(X, [0, 1, 0, 1])["rows"] == 4
    learned = model.learn([[0.0, 0.0], [4.0, 4.0]], None)
    assert learned.labels == [0, 1]
    assert model.predict([[0.0, 0.0]]).tolist() == [0]


def test_a_single_row_and_a_single_class(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    first = model.learn([[0.0, 2.0]], ["only"], top_k=3)
    assert first.labels == [None]
    assert first.stats["new_classes"] == first.stats["born"] == first.stats["active_centroids"] == 1
    second = model.learn([[0.0, 1.0]], ["only"], top_k=3)
    assert second.labels == ["only"]
    assert second.prototypes.tolist() == [0]
    assert second.scores[0] == pytest.approx(1.1 + 0.25 * np.log(1.5))  # the cosine, and what "only" has of the column
    assert second.top_labels == [["only", None, None]]
    assert second.top_probs is not None
    assert second.top_probs.tolist() == [[1, 0, 0]]
    assert model.predict_proba([[1.0, 1.0]]).tolist() == [[1.0]]


def test_nothing_is_known_before_the_first_labelled_row(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    X, _ = text_stream(0, 5)
    for ask in (model.predict, model.predict_proba, model.decision_function):
        with pytest.raises(NotFittedError):
            ask(X)
    with pytest.raises(NotFittedError):
        _ = model.classes_
    learned = model.learn(X, None, top_k=1)
    assert learned.labels == [None] * 5
    assert learned.scores.tolist() == [0] * 5
    assert learned.prototypes.tolist() == [-1] * 5
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_scikit_learns_methods_work_after_a_prediction_without_a_model(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    X, y = text_stream(0, 30)
    model.predict_top(X, 1)
    model.state()
    assert model.partial_fit(X, y).n_features_in_ == 40


def test_unseen_classes_come_at_any_time(make_classifier: MakeClassifier) -> None:
    model = make_classifier(update_rows=1)
    stats = model.fit_batch(np.eye(4)[[0, 0, 1]], ["a", "a", "b"])
    assert (stats["new_classes"], stats["classes"]) == (2, 2)
    learned = model.learn(np.eye(4)[[2, 2, 0]], ["c", "c", "a"])
    assert learned.labels[1:] == ["c", "a"]
    assert (learned.stats["new_classes"], learned.stats["classes"]) == (1, 3)
    assert model.classes_.tolist() == ["a", "b", "c"]


def test_rows_may_be_wider_or_narrower_than_before(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(1, 60, features=30)
    model = make_classifier()
    model.fit_batch(X[:20, :20], y[:20])
    assert model.n_features_in_ == 20
    model.fit_batch(X[20:40], y[20:40])
    assert model.n_features_in_ == 30
    model.fit_batch(X[40:, :10], y[40:])
    assert model.n_features_in_ == 30
    same = make_classifier()
    for first, width in ((0, 20), (20, 30), (40, 10)):
        padded = X[first : first + 20].toarray()
        padded[:, width:] = 0
        same.fit_batch(padded, y[first : first + 20])
    assert fingerprint(model) == fingerprint(same)
    assert model.predict_top(sp.hstack([X[:, :5], sp.csr_matrix((60, 50))]), 1)[0] == model.predict_top(X[:, :5], 1)[0]
    assert model.n_features_in_ == 30


def test_scikit_learns_own_methods_want_the_width_they_know(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(1, 40)
    model = make_classifier().fit(X, y)
    for ask in (
        model.predict,
        model.predict_proba,
        model.decision_function,
        lambda X: model.partial_fit(X, y),
        lambda X: model.score(X, y),
    ):
        for wrong in (X[:, :39], sp.hstack([X, X[:, :1]])):
            with pytest.raises(ValueError, match=rf"X has {wrong.shape[1]} features, but .* expecting 40 features"):
                ask(wrong)


def test_duplicate_rows_are_learned_like_others(make_classifier: MakeClassifier) -> None:
    X, y = sp.csr_matrix(np.ones((300, 3))), np.arange(300) % 2  # the same row says both
    model = make_classifier()
    stats = model.fit_batch(X, y)
    assert stats["rows"] == 300
    assert np.isfinite(model.decision_function(X[:1])).all()
    assert sum(p.mass for p in prototypes(model)) == pytest.approx(300)


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1e30, 1e300])
def test_the_length_of_a_row_says_nothing_however_huge_or_tiny(make_classifier: MakeClassifier, size: float) -> None:
    X, y = text_stream(2, 80)
    plain, scaled = make_classifier(), make_classifier()
    assert scaled.learn(X * size, y).labels == plain.learn(X, y).labels
    assert scaled.predict(X * size).tolist() == plain.predict(X).tolist()
    assert all(np.isfinite(p.centre).all() and np.isfinite(p.correction).all() for p in prototypes(scaled))


def test_huge_and_tiny_values_in_one_row_stay_finite(make_classifier: MakeClassifier) -> None:
    X = np.array([[1e300, 1e-300], [0, 1e-300], [5e-324, 1e308]])
    model = make_classifier()
    model.fit_batch(X, [0, 1, 2])
    assert np.isfinite(model.decision_function(X)).all()
    assert np.isfinite(model.predict_proba(X)).all()


def test_float32_extremes_stay_finite(make_classifier: MakeClassifier) -> None:
    X = np.array([[3e38, 1e-38], [1e-45, 0], [1.0, 3e38]], np.float32)
    model = make_classifier(update_rows=1)
    model.fit_batch(X, [0, 1, 2])
    assert np.isfinite(model.decision_function(X)).all()


# --- what is not learned ---


@DISTANCES
def test_unlabelled_rows_are_predicted_and_change_nothing(make_classifier: MakeClassifier, distance: str) -> None:
    X, y = text_stream(3, 100)
    model = make_classifier(distance=distance, half_life=50.0)
    model.fit_batch(X[:60], y[:60])
    before = fingerprint(model)
    wide = sp.hstack([X[60:], X[60:]], format="csr")
    for rows in (X[60:], wide):
        learned = model.learn(rows, [None] * 40)
        assert None not in learned.labels
        assert learned.stats["rows"] == learned.stats["shift"] == 0
        assert fingerprint(model) == before
    assert model.learn(X[60:], None).labels == model.predict(X[60:]).tolist()


def test_unlabelled_rows_between_others_leave_no_trace(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(4, 200)
    labels: list[Any] = [None if row % 3 == 0 else int(label) for row, label in enumerate(y)]
    labelled = np.arange(200) % 3 > 0
    mixed, pure = make_classifier(half_life=70.0), make_classifier(half_life=70.0)
    answers = np.array(mixed.learn(X, labels).labels, object)
    assert pure.learn(X[labelled], y[labelled]).labels == answers[labelled].tolist()
    assert fingerprint(mixed) == fingerprint(pure)


def test_rows_of_weight_zero_leave_no_trace(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(4, 200)
    y = np.where(np.arange(200) % 3 == 0, y + 100, y)  # classes that only rows without weight have
    weight = (np.arange(200) % 3 > 0).astype(float)
    mixed, pure = make_classifier(), make_classifier()
    assert mixed.fit_batch(X, y, weight)["rows"] == int(weight.sum())
    pure.fit_batch(X[weight > 0], y[weight > 0])
    assert fingerprint(mixed) == fingerprint(pure)


# --- predicting and learning ---


@DISTANCES
def test_learn_reports_what_was_predicted_before(make_classifier: MakeClassifier, distance: str) -> None:
    X, y = text_stream(7, 300)
    model = make_classifier(distance=distance, update_rows=100)
    model.fit_batch(X[:200], y[:200])
    labels = model.predict(X[200:]).tolist()
    top_labels, top_probs = model.predict_top(X[200:], 3)
    learned = model.learn(X[200:], y[200:], top_k=3)
    assert learned.labels == labels
    assert learned.top_labels == top_labels
    assert learned.top_probs is not None
    np.testing.assert_array_equal(learned.top_probs, top_probs)


def test_learn_predicts_row_by_row_when_rows_are_learned_one_by_one(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(7, 60)
    at_once, one_by_one = make_classifier(update_rows=1), make_classifier(update_rows=1)
    expected = []
    for row in range(60):
        expected += one_by_one.learn(X[row], None).labels
        one_by_one.fit_batch(X[row], y[[row]])
    assert at_once.learn(X, y).labels == expected


def test_fit_batch_learns_what_learn_learns(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(8, 250)
    learned, fitted, partially = make_classifier(), make_classifier(), make_classifier()
    for first in range(0, 250, 50):
        rows = slice(first, first + 50)
        stats = learned.learn(X[rows], y[rows], top_k=3).stats
        assert fitted.fit_batch(X[rows], y[rows]) == stats
        partially.partial_fit(X[rows], y[rows])
    assert fingerprint(learned) == fingerprint(fitted) == fingerprint(partially)


def test_how_a_stream_is_cut_into_batches_does_not_matter_where_groups_end(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(9, 210)
    one, many = make_classifier(update_rows=7), make_classifier(update_rows=7)
    labels = one.learn(X, y).labels
    assert [
        label
        for first in range(0, 210, 21)
        for label in many.learn(X[first : first + 21], y[first : first + 21]).labels
    ] == labels
    for mine, other in zip(prototypes(one), prototypes(many), strict=True):
        assert (mine.id, mine.label, mine.mass, mine.square) == (other.id, other.label, other.mass, other.square)
        np.testing.assert_array_equal(mine.centre, other.centre)
        np.testing.assert_array_equal(mine.correction, other.correction)


def test_a_stream_is_learned(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(10, 2000, features=60, classes=8)
    model = make_classifier()
    predicted: list[Any] = []
    for first in range(0, 2000, 50):
        predicted += model.learn(X[first : first + 50], y[first : first + 50]).labels
    assert np.mean(np.array(predicted[1000:]) == y[1000:]) > 0.9


def test_fit_batch_says_what_it_did(make_classifier: MakeClassifier, capsys: pytest.CaptureFixture[str]) -> None:
    X, y = text_stream(10, 20)
    model = make_classifier()
    model.fit_batch(X, y)
    assert capsys.readouterr().out == ""
    stats = model.fit_batch(X, y, verbose=True)
    assert set(stats) >= {"shift", "num_merged", "active_centroids", "classes", "new_classes", "born", "pruned", "rows"}
    assert "active_centroids 5" in capsys.readouterr().out


def test_partial_fit_takes_announced_classes(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(10, 20)
    with pytest.raises(ValueError, match="label 4"):
        make_classifier().partial_fit(X, np.append(y[:-1], 4), classes=[0, 1, 2, 3])
    assert set(make_classifier().partial_fit(X, y, classes=range(9)).classes_) <= set(range(9))


def test_nbytes_counts_what_is_held(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    assert model.nbytes == 0
    X, y = text_stream(10, 400)
    model.fit_batch(X[:200], y[:200])
    held = model.nbytes
    assert held >= sum(p.centre.astype(bool).sum() for p in prototypes(model)) * 12
    model.fit_batch(sp.hstack([sp.csr_matrix((200, 1000)), X[200:]]), y[200:])
    assert model.nbytes > held

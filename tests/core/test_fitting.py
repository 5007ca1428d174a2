"""`fit`: seeds, then passes until the prototypes settle. For every engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.datasets import make_classification
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import NearestCentroid

from tests.core.conftest import DISTANCES, MakeClassifier
from tests.core.inspecting import fingerprint, prototypes
from tests.core.streams import dense_stream, text_stream, two_faced_class


@pytest.mark.parametrize("init_method", ["kmeans++", "random"])
def test_each_class_gets_its_seeds(make_classifier: MakeClassifier, init_method: str) -> None:
    X, y = text_stream(0, 200)
    model = make_classifier(k_init=4, init_method=init_method, max_iters=1, merge_threshold=0).fit(X, y)
    assert [sum(p.label == c for p in prototypes(model)) for c in range(5)] == [4] * 5


@pytest.mark.parametrize("init_method", ["kmeans++", "random"])
def test_a_class_has_no_more_seeds_than_different_rows(make_classifier: MakeClassifier, init_method: str) -> None:
    X = np.array([[1.0, 0], [2.0, 0], [0, 1.0], [1.0, 1.0], [1.0, 1.0]])  # the first two have one direction
    model = make_classifier(k_init=3, init_method=init_method, max_iters=1, idf=False).fit(X, ["a", "a", "a", "b", "b"])
    assert [p.label for p in prototypes(model)] == ["a", "a", "b"]


def test_k_list_says_how_many_seeds_by_label_or_by_position_in_classes(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(1, 200, classes=3)
    for k_list, labels in (({0: 1, 2: 4}, y), ([1, 2, 4], y[::1]), ([1, 2, 4], np.array(["a", "b", "c"])[y])):
        model = make_classifier(k_init=2, k_list=k_list, max_iters=1, merge_threshold=0).fit(X, labels)
        assert [sum(p.label == c for p in prototypes(model)) for c in model.classes_.tolist()] == [1, 2, 4]


def test_fit_separates_the_faces_of_a_class(make_classifier: MakeClassifier) -> None:
    X, y = two_faced_class(0, 600)
    model = make_classifier(k_init=3).fit(X[:400], y[:400])
    assert model.score(X[400:], y[400:]) > 0.97
    faces = {int(p.centre[:3].argmax()) for p in prototypes(model) if p.label == 0}
    assert faces == {0, 1, 2}


@DISTANCES
def test_fit_beats_chance_by_far_on_dense_rows(make_classifier: MakeClassifier, distance: str) -> None:
    X, y = make_classification(600, 20, n_informative=8, n_classes=3, n_clusters_per_class=2, random_state=0)
    score = cross_val_score(make_classifier(distance=distance), X, y, cv=3).mean()
    assert score > cross_val_score(NearestCentroid(), X, y, cv=3).mean() - 0.02
    assert score > 0.6


def test_fit_starts_anew(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(2, 150)
    model = make_classifier().fit(np.eye(3), ["x", "y", "z"])
    assert fingerprint(model.fit(X, y)) == fingerprint(make_classifier().fit(X, y))


def test_a_fit_that_fails_leaves_the_model_as_it_was(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(2, 150)
    model = make_classifier().fit(X, y)
    before = fingerprint(model)
    for wrong in ((X[:0], []), (sp.csr_matrix((2, 40)), [1, 2]), (X[:2], [None, None]), (X[:1], [np.nan])):
        with pytest.raises(ValueError):
            model.fit(*wrong)
        assert fingerprint(model) == before
    with pytest.raises(ValueError, match="weight"):
        model.fit(X[:1], [1], [0.0])
    assert fingerprint(model) == before


def test_fit_ignores_rows_that_say_nothing(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(3, 100)
    padded = sp.vstack([X, sp.csr_matrix((2, 40)), X[:3], X[:2]])
    labels: list[Any] = [*y.tolist(), 0, 99, None, None, None, 99, 99]
    weight = np.append(np.ones(105), [0, 0])
    assert fingerprint(make_classifier().fit(padded, labels, weight)) == fingerprint(make_classifier().fit(X, y))


def test_passes_end_when_prototypes_settle(make_classifier: MakeClassifier, capsys: pytest.CaptureFixture[str]) -> None:
    X, y = text_stream(4, 100)
    for tol, passes in ((10.0, 1), (0.0, 7)):
        model = make_classifier(tol=tol, max_iters=7).fit(X, y)
        assert sum(p.mass for p in prototypes(model)) == pytest.approx(100 * passes + 15, rel=0.01)


def test_the_progress_bar_shows_when_asked_for_and_on_terminals_only(
    make_classifier: MakeClassifier, capsys: pytest.CaptureFixture[str]
) -> None:
    X, y = text_stream(4, 60)
    for verbose, shown in ((None, False), (False, False), (True, True)):
        make_classifier(max_iters=2).fit(X, y, verbose=verbose)
        out, err = capsys.readouterr()
        assert out == ""
        assert ("fit" in err) is shown


def test_random_state_decides_everything(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(5, 150)
    first, again, other = (make_classifier(random_state=seed).fit(X, y) for seed in (1, 1, 2))
    assert fingerprint(first) == fingerprint(again)
    assert fingerprint(first, parameters=False) != fingerprint(other, parameters=False)


def test_a_fitted_model_goes_on_with_a_stream(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(6, 1000)
    model = make_classifier().fit(X[:300], y[:300])
    labels: list[Any] = []
    for first in range(300, 1000, 100):
        labels += model.learn(X[first : first + 100], y[first : first + 100]).labels
    assert np.mean(np.array(labels) == y[300:]) > 0.85


def test_sample_weights_weigh_in_fit(make_classifier: MakeClassifier) -> None:
    X, y = dense_stream(7, 90)
    model = make_classifier(k_init=1, max_iters=1, lambda_penalty=0.0).fit(X, y, np.where(y == 2, 5.0, 1.0))
    seeded = 5 * 1 + 1 + 1
    assert sum(p.mass for p in prototypes(model)) == pytest.approx(np.where(y == 2, 5, 1).sum() + seeded)

"""The classifier among scikit-learn's: its checks of every estimator, and the ways people combine estimators."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline

from prototide.core import FastKMeansClassifier
from tests.core.conftest import MakeClassifier
from tests.core.estimator_checks import EXPECTED_FAILURES
from tests.core.inspecting import fingerprint
from tests.core.streams import dense_stream, text_stream


@pytest.mark.parametrize(
    "parameters",
    [{}, {"distance": "euclidean"}, {"soft_type": "softmax", "novelty": "auto"}],
    ids=["default", "euclidean", "softmax"],
)
def test_passes_scikit_learns_checks_without_a_skip(parameters: dict[str, Any]) -> None:
    # In a process of its own: one check needs an environment variable before SciPy is imported.
    command = [sys.executable, "-m", "tests.core.estimator_checks", json.dumps(parameters)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2], env=os.environ
    )
    outcomes = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(outcomes) > 50
    others = [outcome for outcome in outcomes if outcome["status"] != "passed"]
    assert {outcome["check"]: outcome["status"] for outcome in others} == dict.fromkeys(EXPECTED_FAILURES, "xfail"), (
        others
    )


def test_a_clone_has_the_parameters_and_nothing_learned(make_classifier: MakeClassifier) -> None:
    model = make_classifier(k_init=2, k_list={"a": 5}, half_life=100.0, novelty=0.05, forget_classes=True)
    model.fit_batch(np.eye(3), ["a", "b", "c"])
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert copy.nbytes == 0
    assert FastKMeansClassifier(**model.get_params()).get_params() == model.get_params()


def test_learns_in_a_pipeline_and_in_a_grid_search() -> None:
    texts = [f"{word} number {number}" for number in range(30) for word in ("apple", "stone", "river")]
    labels = ["fruit", "rock", "water"] * 30
    pipeline = make_pipeline(HashingVectorizer(n_features=256, alternate_sign=False), FastKMeansClassifier(n_threads=1))
    assert pipeline.fit(texts, labels).predict(["an apple", "the river"]).tolist() == ["fruit", "water"]
    assert cross_val_score(pipeline, texts, labels, cv=3).mean() > 0.9
    X, y = dense_stream(3, 90)
    search = GridSearchCV(FastKMeansClassifier(distance="euclidean", n_threads=1), {"k_init": [1, 2]}, cv=2).fit(X, y)
    assert search.best_score_ > 0.9


def test_a_pickled_estimator_predicts_and_learns_on_like_the_original(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(4, 300)
    model = make_classifier(novelty="auto")
    model.fit_batch(X[:200], y[:200])
    copy = pickle.loads(pickle.dumps(model))
    assert fingerprint(copy) == fingerprint(model)
    assert copy.learn(X[200:], y[200:]).labels == model.learn(X[200:], y[200:]).labels
    assert fingerprint(copy) == fingerprint(model)


def test_what_was_pickled_elsewhere_goes_on_on_the_cpu(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(4, 100)
    model = make_classifier(max_iters=1)
    model.fit_batch(X, y)
    model._device = "cuda:77"  # as if `to` had found one
    copy = pickle.loads(pickle.dumps(model))
    assert copy.fit(X, y).score(X, y) > 0.9


def test_a_table_names_its_columns_and_they_are_asked_for(make_classifier: MakeClassifier) -> None:
    table = pd.DataFrame({"size": [1.0, 9.0, 1.2, 8.0], "weight": [9.0, 1.0, 8.0, 2.0]})
    for begin in ("fit", "partial_fit"):
        model = make_classifier()
        getattr(model, begin)(table, ["light", "heavy", "light", "heavy"])
        assert model.feature_names_in_.tolist() == ["size", "weight"]
        assert model.n_features_in_ == 2
        assert model.predict(table).tolist() == ["light", "heavy", "light", "heavy"]
        with pytest.raises(ValueError, match="feature names should match"):
            model.predict(table.rename(columns={"size": "length"}))
        with pytest.raises(ValueError, match="feature names should match"):
            model.partial_fit(table[["weight", "size"]], [0, 1, 0, 1])


def test_a_stream_has_no_column_names(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    model.fit_batch(pd.DataFrame({"a": [1.0]}), ["x"])
    assert not hasattr(model, "feature_names_in_")


def test_of_two_classes_the_decision_is_the_seconds_lead(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(6, 200, classes=2)
    model = make_classifier().fit(X, y)
    decision = model.decision_function(X)
    assert decision.shape == (200,)
    assert model.predict(X)[decision != 0].tolist() == (decision > 0).astype(int)[decision != 0].tolist()


def test_a_partial_fit_refused_before_anything_was_learned_leaves_no_trace(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    with pytest.raises(ValueError, match="not in classes"):
        model.partial_fit(np.eye(2), ["a", "b"], classes=["a"])
    assert model.nbytes == 0
    assert not hasattr(model, "feature_names_in_")

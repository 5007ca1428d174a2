"""The shortlist answers with the bits of scoring every slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from prototide.core import FastKMeansClassifier
from prototide.core.engines import indexed_ranking, indexed_upkeep
from tests.core.conftest import MakeClassifier
from tests.core.streams import text_stream

EVERYTHING = 10**9


def answers(monkeypatch: pytest.MonkeyPatch, exhaustive_slots: int, seed: int, **parameters: Any) -> tuple[Any, ...]:
    """What a stream's rows are answered, and the state afterwards; many features are hot."""
    monkeypatch.setattr(indexed_ranking, "EXHAUSTIVE_SLOTS", exhaustive_slots)
    monkeypatch.setattr(indexed_upkeep, "HOT_LEAST", 3)
    monkeypatch.setattr(indexed_upkeep, "HOT_SHARE", 8)
    X, y = text_stream(seed, rows=2400, features=60, classes=12)
    model, seen = FastKMeansClassifier(n_threads=1, **parameters), []
    for first in range(0, X.shape[0], 150):
        learned = model.learn(X[first : first + 150], y[first : first + 150], top_k=3)
        seen.append((learned.labels, learned.scores.tolist(), learned.prototypes.tolist(), learned.top_labels))
    return seen, model.predict(X).tolist(), {name: array.tobytes() for name, array in model.state()[0].items()}


@pytest.mark.parametrize(
    "parameters",
    [
        {"lambda_penalty": 0.0, "k_init": 1},
        {"lambda_penalty": 0.1, "k_init": 1, "update_rows": 7},
        {"lambda_penalty": 0.1, "k_init": 4, "update_rows": 50},
        {"lambda_penalty": 0.5, "k_init": 3, "half_life": 200.0},
        {"lambda_penalty": 0.1, "k_init": 3, "dtype": "float64", "truncation_threshold": 0.05},
        {"lambda_penalty": 0.1, "k_init": 3, "dtype": "bfloat16"},
        {"lambda_penalty": 0.1, "k_init": 1, "dtype": "float16"},
        {"lambda_penalty": 1000.0, "k_init": 1, "dtype": "float16"},  # entries are clipped
        {"lambda_penalty": 0.0, "k_init": 2, "dtype": "bfloat16", "half_life": 200.0},
    ],
)
def test_a_shortlist_gives_the_bits_of_scoring_all_slots(
    monkeypatch: pytest.MonkeyPatch, parameters: dict[str, Any]
) -> None:
    seed = int(np.random.default_rng().integers(1 << 30))
    everything = answers(monkeypatch, EVERYTHING, seed, **parameters)
    assert answers(monkeypatch, 0, seed, **parameters) == everything, f"seed {seed}"


def test_rows_that_leave_too_many_slots_are_scored_against_all(monkeypatch: pytest.MonkeyPatch) -> None:
    everything = answers(monkeypatch, EVERYTHING, 3, k_init=2)
    monkeypatch.setattr(indexed_ranking, "SURVIVORS", 0)
    assert answers(monkeypatch, 0, 3, k_init=2) == everything


def test_a_restored_model_makes_the_same_shortlists(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexed_ranking, "EXHAUSTIVE_SLOTS", 0)
    monkeypatch.setattr(indexed_upkeep, "HOT_LEAST", 3)
    X, y = text_stream(5, rows=1200, features=60, classes=12)
    model = FastKMeansClassifier(n_threads=1).partial_fit(X, y)
    restored = FastKMeansClassifier.from_state(*model.state())
    for one in (model, restored):
        one.learn(X[:100], y[:100])
    assert restored.learn(X, y).scores.tolist() == model.learn(X, y).scores.tolist()


def test_a_bound_follows_what_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """A correction fades by half_life and the centre does not: bounds of old corrections would miss class 0."""
    monkeypatch.setattr(indexed_upkeep, "HOT_LEAST", 3)
    monkeypatch.setattr(indexed_upkeep, "HOT_SHARE", 8)

    def row(shared: Sequence[float], own: int, value: float) -> list[float]:
        values = [*shared, *[0.0] * 60]
        values[own] = value
        return values

    model = FastKMeansClassifier(half_life=50.0, lambda_penalty=1.0, k_init=1, n_threads=1)
    others = range(10, 30)
    model.learn([row([0.1] * 4, k, 1.0) for k in others] * 55, [*others] * 55)  # the shared features become hot
    for number, signs in enumerate([(1, -1, 0, 0), (0, 0, 1, -1), (1, 1, -1, -1)]):
        model.learn([row(signs, 4, 0.0)] * 3, [100 + number] * 3)  # high bounds, score 0
    asked = row([1.0] * 4, 4, 0.0)
    model.learn([asked] * 3, [0] * 3)
    model.learn([row([1.0] * 4, 4, 0.5)] * 30, [1] * 30)  # pushes class 0 down
    found = []
    for _ in range(20):
        model.learn([row([0.0] * 4, k, 1.0) for k in others], others)
        for slots in (EVERYTHING, 0):
            monkeypatch.setattr(indexed_ranking, "EXHAUSTIVE_SLOTS", slots)
            found.append(int(model.predict([asked])[0]))
    assert found[::2] == found[1::2]
    assert set(found) == {0, 1}


def test_products_that_vanish_in_a_float32_are_not_passed_over(make_classifier: MakeClassifier) -> None:
    classes = 1_100
    each = np.arange(classes)
    values = np.r_[np.ones(classes), 1e-25 * (each + 1)]
    X = sp.csr_matrix((values, (np.r_[each, each], np.r_[each, np.full(classes, classes)])), (classes, classes + 1))
    model = make_classifier(lambda_penalty=0, idf=False, k_init=1, dtype="float64", update_rows=2_000)
    model.fit_batch(X, each)
    query = sp.csr_matrix(([1e-25, 1.0], ([0, 0], [classes, classes + 1])), (1, classes + 2))
    assert model.learn(query, None).labels == [classes - 1]

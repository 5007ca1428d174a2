"""`memory_budget_bytes`: above it, near prototypes merge and the entries that matter least go. For every engine."""

from __future__ import annotations

import warnings
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.typing import NDArray

from prototide.core import FastKMeansClassifier
from prototide.core.engines import budget
from tests.core.conftest import ENGINES, MakeClassifier
from tests.core.inspecting import fingerprint, prototypes
from tests.core.streams import text_stream

FEATURES, CLASSES, ROWS = 3_000, 30, 6_000


def stream(seed: int) -> tuple[sp.csr_matrix, NDArray[np.int64]]:
    """Rows of 20 words: half from 60 words of their own class, half from all."""
    random = np.random.default_rng(seed)
    words = np.random.default_rng(9).integers(0, FEATURES, (CLASSES, 60))
    y = random.integers(0, CLASSES, ROWS)
    own = words[y[:, None], random.integers(0, 60, (ROWS, 10))]
    columns = np.hstack([own, random.integers(0, FEATURES, (ROWS, 10))])
    values = random.random(columns.shape) + 0.5
    X = sp.csr_matrix((values.ravel(), columns.ravel(), np.arange(0, columns.size + 1, 20)), (ROWS, FEATURES))
    X.sum_duplicates()
    return X, y


def learned(model: Any, X: Any, y: Any, size: int = 512) -> Any:
    for first in range(0, len(y), size):
        model.fit_batch(X[first : first + size], y[first : first + size])
    return model


def model_of(make_classifier: MakeClassifier, seed: int, **parameters: Any) -> Any:
    """A model of a few groups, of several prototypes a class."""
    X, y = text_stream(seed, 900, features=60, modes=3)
    model = make_classifier(k_init=3, max_iters=2, merge_threshold=0.0, **parameters)
    return model.fit(X, y)


def engine_of(model: FastKMeansClassifier) -> Any:
    return model._fitted.engine


@pytest.mark.parametrize("parameters", [{}, {"lambda_penalty": 0.0}, {"half_life": 2000.0}], ids=str)
def test_a_model_stays_within_its_budget_and_keeps_its_classes_and_most_of_its_accuracy(
    make_classifier: MakeClassifier, parameters: dict[str, Any]
) -> None:
    X, y = stream(0)
    asked, truth = stream(1)
    free = learned(make_classifier(**parameters), X, y)
    content, tables = engine_of(free).packed_bytes, 45 * FEATURES
    most = int((tables + 0.4 * (content - tables)) / budget.CONTENT)
    assert most < 0.8 * free.nbytes
    model = make_classifier(**parameters, memory_budget_bytes=most)
    for first in range(0, ROWS, 1024):  # ends where maintenance was, or before it is due again
        learned(model, X[first : first + 1024], y[first : first + 1024], 1024)
        if model._fitted.engine.rows_learned % 1024 == 0:
            assert model.nbytes <= most
    assert {prototype.label for prototype in prototypes(model)} == set(range(CLASSES))
    assert model.score(asked, truth) > free.score(asked, truth) - 0.03


def test_what_is_decided_does_not_depend_on_threads(make_classifier: MakeClassifier) -> None:
    X, y = stream(2)
    states = [
        fingerprint(learned(make_classifier(n_threads=n, memory_budget_bytes=400_000), X, y), parameters=False)
        for n in (1, 2)
    ]
    assert states[0] == states[1]


def test_a_restored_model_goes_on_as_the_saved_one(make_classifier: MakeClassifier) -> None:
    X, y = stream(3)
    model = learned(make_classifier(memory_budget_bytes=400_000), X[:3000], y[:3000])
    copy = type(model).from_state(*model.state())
    assert copy.get_params()["memory_budget_bytes"] == 400_000
    assert engine_of(copy).packed_bytes == engine_of(model).packed_bytes
    for each in (model, copy):
        learned(each, X[3000:], y[3000:])
    assert fingerprint(model, parameters=False) == fingerprint(copy, parameters=False)


def test_without_need_a_budget_changes_nothing_but_the_fast_form(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(4, 3000)
    free = learned(make_classifier(), X, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bound = learned(make_classifier(memory_budget_bytes=10**9), X, y)
    assert fingerprint(bound, parameters=False) == fingerprint(free, parameters=False)


def test_one_warning_tells_what_a_budget_that_cannot_be_met_would_have_to_be(make_classifier: MakeClassifier) -> None:
    X, y = stream(5)
    model = make_classifier(k_init=3, memory_budget_bytes=50_000)
    with pytest.warns(UserWarning, match="memory_budget_bytes=50000 cannot be met: 30 prototypes .* 3000 ") as told:
        learned(model, X, y)
    assert len(told) == 1
    needed = int(str(told[0].message).split("at least ")[1].split()[0])
    assert needed > 50_000
    assert {prototype.label for prototype in prototypes(model)} == set(range(CLASSES))
    assert all(np.count_nonzero(prototype.centre) >= 1 for prototype in prototypes(model))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learned(make_classifier(k_init=3, memory_budget_bytes=2 * needed), X, y)


def test_entries_go_by_their_part_in_the_score_whichever_prototype_they_are_of(
    make_classifier: MakeClassifier,
) -> None:
    model = model_of(make_classifier, 6)
    engine = engine_of(model)
    before = {p.id: p for p in prototypes(model)}
    goal = engine.packed_bytes - int(200 * engine.entry_bytes)
    budget._drop_entries(engine, goal, 0.5)
    assert engine.packed_bytes <= goal
    kept, gone = [], []
    for p in prototypes(model):
        old = before[p.id]
        part = np.maximum(engine.rule.tau * abs(old.centre) / np.sqrt(old.square), abs(old.correction))
        here = (p.centre != 0) | (p.correction != 0)
        spared = part >= 0.5 * (engine.rule.tau * abs(old.centre) / np.sqrt(old.square)).max()
        assert here[spared].all()
        kept.append(part[here & ~spared])
        gone.append(part[(part > 0) & ~here])
        assert p.square == pytest.approx(p.centre @ p.centre, rel=1e-5)
    assert np.concatenate(gone).size >= 200
    assert np.concatenate(gone).max() < np.concatenate(kept).min() * 1.1  # buckets are 2^(1/16) wide


def test_the_nearest_prototypes_of_a_class_merge_first(make_classifier: MakeClassifier) -> None:
    angles = np.radians([0, 20, 90])  # distances .06, .66 and 1.0
    rows = np.column_stack([np.cos(angles), np.sin(angles), np.zeros(3)])
    model = make_classifier(k_init=3, max_iters=1, soft=False, idf=False, lambda_penalty=0.0, merge_threshold=0.0)
    model.fit(np.vstack([rows, [[0, 0, 1.0]]]), ["a", "a", "a", "b"])
    engine, before = engine_of(model), prototypes(model)
    left = []
    for distance in (0.05, 0.1, 0.4, 2.0):
        engine.merge_within(distance)
        left.append(sum(p.label == "a" for p in prototypes(model)))
    assert left == [3, 2, 2, 1]
    (centre,) = (p.centre for p in prototypes(model) if p.label == "a")
    np.testing.assert_allclose(centre, sum(p.centre for p in before if p.label == "a"), rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("correction", [0.0, 0.1])
def test_the_indexed_engine_gives_up_what_the_plain_one_does(seed: int, correction: float) -> None:
    plain = model_of(ENGINES["plain"], seed, lambda_penalty=correction)
    fast = FastKMeansClassifier.from_state(*plain.state())
    engines = engine_of(plain), engine_of(fast)
    assert [engine.name for engine in engines] == ["plain", "indexed"]
    largest = [engine.largest_parts() for engine in engines]
    used = min(array.size for array in largest)
    np.testing.assert_allclose(largest[0][:used], largest[1][:used], rtol=1e-6)
    if not (engines[1]._index.hot >= 0).any():
        counts = [engine.part_counts(0.5 * each) for engine, each in zip(engines, largest, strict=True)]
        assert abs(counts[0] - counts[1]).sum() <= 4  # rounding at the edges of buckets
        assert counts[0].sum() == counts[1].sum() > 0
    for distance, share in ((0.3, 0.2), (0.5, 0.4)):
        for engine, each in zip(engines, largest, strict=True):
            engine.merge_within(distance)
            engine.drop_parts(np.where(engine.slots.kind > 0, share * each[: engine.slots.kind.size], 0.0))
    pairs = list(zip(prototypes(plain), prototypes(fast), strict=True))
    assert pairs
    for one, other in pairs:
        assert (one.id, one.label) == (other.id, other.label)
        assert one.square == pytest.approx(other.square, rel=1e-5)
        np.testing.assert_allclose(one.centre, other.centre, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(one.correction, other.correction, rtol=1e-4, atol=1e-6)


def test_hot_features_become_lists_again_without_a_change_of_the_model() -> None:
    X, y = stream(7)
    labels = [f"{label}-{part}" for label, part in zip(y, np.arange(ROWS) % 40, strict=True)]
    model = learned(FastKMeansClassifier(k_init=1, n_threads=1), X, labels)
    engine = engine_of(model)
    hot = np.flatnonzero(engine._index.hot >= 0)
    assert hot.size > 10
    before, packed = model.state()[0], engine.packed_bytes
    asked, _ = stream(8)
    answers = model.predict(asked)
    engine.pack_hot()
    assert np.count_nonzero(engine._index.hot >= 0) < hot.size
    assert engine.packed_bytes < packed
    after = model.state()[0]
    for name in ("engine.entry.count", "engine.entry.slot", "engine.entry.centre", "engine.entry.correction"):
        np.testing.assert_array_equal(before[name], after[name])
    assert (model.predict(asked) == answers).all()
    learned(model, asked[:2048], labels[:2048])


def test_buckets_order_parts_as_their_size_does() -> None:
    parts = np.sort(np.exp(np.random.default_rng(0).uniform(-60, 10, 2000)))
    numbers = [budget.bucket(part) for part in parts]
    assert all(a <= b for a, b in pairwise(numbers))
    assert all(budget.edge(n) <= np.float32(part) < budget.edge(n + 1) for n, part in zip(numbers, parts, strict=True))
    assert budget.edge(budget.BUCKETS) == np.inf

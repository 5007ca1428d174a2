"""One test for each fault of the original implementation that must not come back. For every engine."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from prototide.core import FastKMeansClassifier
from tests.core.conftest import MakeClassifier
from tests.core.inspecting import fingerprint, prototypes
from tests.core.streams import text_stream, two_faced_class


def _unit(X: sp.csr_matrix) -> np.ndarray:
    dense = X.toarray()
    return dense / np.sqrt((dense**2).sum(axis=1, keepdims=True))


def test_early_rows_do_not_dominate_a_centre(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(0, 3000, features=120, classes=150, modes=1)
    model = make_classifier(k_init=1, lambda_penalty=0.0, idf=False, dtype="float64")
    for first in range(0, 3000, 250):
        model.fit_batch(X[first : first + 250], y[first : first + 250])
    units = _unit(X)
    sums = np.array([units[y == p.label].sum(axis=0) for p in prototypes(model)])
    np.testing.assert_allclose([p.centre for p in prototypes(model)], sums, rtol=1e-10)
    labels = np.array([p.label for p in prototypes(model)])
    nearest = labels[(units @ (sums / np.linalg.norm(sums, axis=1, keepdims=True)).T).argmax(axis=1)]
    assert (model.predict(X) == nearest).mean() > 0.999


@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_rows_are_not_attracted_by_prototypes_of_other_classes(make_classifier: MakeClassifier, penalty: float) -> None:
    model = make_classifier(lambda_penalty=penalty, idf=False)
    model.fit_batch([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]], ["other", "own"])
    before = prototypes(model)[0]
    model.fit_batch([[1.0, 0.1, 0.0]] * 5, ["own"] * 5)  # next to the other class
    after = prototypes(model)[0]
    assert (after.label, after.mass, after.square) == (before.label, before.mass, before.square)
    np.testing.assert_array_equal(after.centre, before.centre)
    assert (after.correction != before.correction).any() == (penalty > 0)


def test_a_class_gets_more_prototypes_than_its_first_batch_had_rows(make_classifier: MakeClassifier) -> None:
    X, y = two_faced_class(0, 2000)
    model = make_classifier(k_init=3)
    model.fit_batch(X[:2], y[:2])
    assert len(prototypes(model)) <= 2
    model.fit_batch(X[2:], y[2:])
    assert sum(p.label == 0 for p in prototypes(model)) == 3


def test_with_a_half_life_old_rows_are_forgotten_and_prototypes_pruned(make_classifier: MakeClassifier) -> None:
    X, y = two_faced_class(1, 3000)
    model = make_classifier(k_init=3, half_life=40.0, merge_threshold=0.0)
    model.fit_batch(X[:1000], y[:1000])
    assert sum(p.label == 0 for p in prototypes(model)) == 3
    assert sum(p.mass for p in prototypes(model)) == pytest.approx(1 / (1 - 0.5 ** (1 / 40)), rel=0.05)
    stays = (y[1000:] == 1) | (X[1000:, [0]].toarray().ravel() > 0.5)
    stats = model.fit_batch(X[1000:][stays], y[1000:][stays])
    assert stats["pruned"] == 2
    assert [p.label for p in prototypes(model)].count(0) == 1


def test_a_class_that_changes_its_meaning_is_learned_anew_with_a_half_life(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(2, 3000)
    model = make_classifier(half_life=100.0)
    model.fit_batch(X[:2000], y[:2000])
    model.fit_batch(X[2000:2800], (y[2000:2800] + 1) % 5)
    assert np.mean(model.predict(X[2800:]) == (y[2800:] + 1) % 5) > 0.85


def test_a_new_word_stays_however_small_it_begins(make_classifier: MakeClassifier) -> None:
    row, with_word = np.zeros((1, 4)), np.zeros((1, 4))
    row[0, 0], with_word[0, [0, 3]] = 1.0, [1.0, 1e-3]
    model = make_classifier(k_init=1, idf=False)
    model.fit_batch(np.eye(4)[[1]], ["other"])
    for _ in range(20):
        model.fit_batch(row, ["own"])
        model.fit_batch(with_word, ["own"])
    own = next(p for p in prototypes(model) if p.label == "own")
    assert own.centre[3] == pytest.approx(20 * 1e-3, rel=1e-3)


def test_seeds_are_drawn_by_squared_distance_not_by_its_square(make_classifier: MakeClassifier) -> None:
    # a and b near each other (squared distance 0.4), c at distance^2 2 from both: {a, b} has probability 1/9, else 1/39
    rows = np.array([[1.0, 0, 0], [0.8, 0.6, 0], [0, 0, 1.0]])
    near = 0
    for seed in range(300):
        model = make_classifier(k_init=2, max_iters=1, soft=False, idf=False, lambda_penalty=0.0, random_state=seed)
        near += all(p.centre[0] > 0 for p in prototypes(model.fit(rows, [0, 0, 0], verbose=False)))
    assert 18 <= near <= 50


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_counts_are_exact_in_half_precision_and_merges_stay_finite(make_classifier: MakeClassifier, dtype: str) -> None:
    X, y = two_faced_class(3, 3000, sides=2)
    model = make_classifier(dtype=dtype, merge_threshold=0.95, soft=False)
    stats = [
        model.fit_batch(X[:1000], y[:1000], np.full(1000, 100.0)),
        model.fit_batch(X[1000:], y[1000:], np.full(2000, 100.0)),
    ]
    assert sum(s["num_merged"] for s in stats) > 0
    masses = {label: sum(p.mass for p in prototypes(model) if p.label == label) for label in (0, 1)}
    trials = 0.05  # rows that a trial attracted too, before it was promoted
    assert masses[0] == pytest.approx(100 * (y == 0).sum(), rel=trials)
    assert max(masses.values()) > 65504
    assert np.isfinite([p.centre for p in prototypes(model)]).all()
    assert np.isfinite(model.decision_function(X)).all()


def test_bfloat16_counts_beyond_256(make_classifier: MakeClassifier) -> None:
    model = make_classifier(dtype="bfloat16")
    for _ in range(3):
        model.fit_batch(np.eye(2)[np.zeros(200, int)], ["a"] * 200)
    assert [p.mass for p in prototypes(model)] == [600]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_gives_probabilities(make_classifier: MakeClassifier, dtype: str) -> None:
    X, y = text_stream(4, 300)
    half, full = make_classifier(dtype=dtype), make_classifier()
    half.fit_batch(X[:200], y[:200])
    full.fit_batch(X[:200], y[:200])
    np.testing.assert_allclose(half.predict_proba(X[200:]).sum(axis=1), 1)
    assert np.mean(half.predict(X[200:]) == full.predict(X[200:])) > 0.95


def test_quantiles_and_maintenance_of_thousands_of_classes_are_quick(make_classifier: MakeClassifier) -> None:
    # 6,000 prototypes: 36 million pairs of all with all; same-class pairs only are looked at, and not in Python
    random, classes = np.random.default_rng(0), 6000
    indices = random.integers(0, 20_000, (2 * classes, 5))
    X = sp.csr_matrix(
        (np.ones(10 * classes), indices.ravel(), np.arange(0, 10 * classes + 1, 5)), (2 * classes, 20_000)
    )
    model = make_classifier(percentile_threshold=0.1, merge_threshold=0.3, relative_merge=True, n_threads=-1)
    model.fit_batch(X[:classes], np.arange(classes))
    start = time.process_time()
    stats = model.fit_batch(X[classes:], np.arange(classes))
    assert stats["classes"] == classes
    assert time.process_time() - start < 60


def test_labels_are_never_floats_and_may_be_strings(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    model.fit_batch(np.eye(3), [2**53, 2**53 + 1, "text"])
    assert model.predict(np.eye(3)).tolist() == [2**53, 2**53 + 1, "text"]


def test_numpys_global_generator_is_neither_seeded_nor_used(make_classifier: MakeClassifier) -> None:
    np.random.seed(123)  # noqa: NPY002
    before = np.random.get_state()[1].tolist()  # type: ignore[index, union-attr]  # noqa: NPY002
    X, y = text_stream(5, 100)
    make_classifier().fit(X, y).fit_batch(X, y)
    assert np.random.get_state()[1].tolist() == before  # type: ignore[index, union-attr]  # noqa: NPY002


def test_the_order_of_rows_in_fit_is_seeded(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(5, 100)
    assert fingerprint(make_classifier(random_state=7).fit(X, y)) == fingerprint(
        make_classifier(random_state=7).fit(X, y)
    )


def test_predict_and_predict_proba_never_disagree(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(6, 1500, classes=30)
    model = make_classifier()
    model.fit_batch(X[:500], y[:500])
    assert (model.classes_[model.predict_proba(X).argmax(axis=1)] == model.predict(X)).all()


def test_rows_of_zeros_are_added_to_no_class(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(7, 100)
    model = make_classifier()
    model.fit_batch(X, y)
    before = fingerprint(model)
    assert model.fit_batch(sp.csr_matrix((5, 40)), [0, 1, 2, 3, 99])["rows"] == 0
    assert fingerprint(model) == before


def test_a_reader_does_not_race_with_a_writer(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(8, 200)
    model = make_classifier()
    model.fit_batch(X, y)
    errors: list[Exception] = []

    def read() -> None:
        try:
            while writer.is_alive():
                model.predict(X[:5])
                model.predict_proba(X[:5])
        except Exception as error:
            errors.append(error)

    writer = threading.Thread(target=lambda: [model.fit_batch(X[:10], y[:10] + 10 * step) for step in range(60)])
    reader = threading.Thread(target=read)
    writer.start()
    reader.start()
    writer.join()
    reader.join()
    assert errors == []
    assert len(model.classes_) > 50


def test_the_state_knows_the_classes(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    model.fit_batch(np.eye(3), [5, "x", 3])
    restored = FastKMeansClassifier.from_state(*model.state())
    assert restored.classes_.tolist() == [3, 5, "x"]
    assert restored.predict(np.eye(3)).tolist() == [5, "x", 3]


def test_empty_and_wider_batches_are_taken(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(9, 50)
    model = make_classifier()
    model.fit_batch(X, y)
    assert model.fit_batch(X[:0], [])["rows"] == 0
    assert model.fit_batch(sp.hstack([X, X]), y)["rows"] == 50
    assert model.n_features_in_ == 80


def test_a_newborn_class_does_not_rule_the_shift(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(10, 400)
    model, other = make_classifier(update_rows=500), make_classifier(update_rows=500)
    for each in (model, other):
        each.fit_batch(X[:300], y[:300])
    quiet = model.fit_batch(X[300:], y[300:])
    with_newborn: dict[str, Any] = dict(other.fit_batch(sp.vstack([X[300:], X[:1]]), [*y[300:].tolist(), "newborn"]))
    assert with_newborn["new_classes"] == 1
    assert 0 < quiet["shift"] < quiet["shift_max"] < 0.5
    assert with_newborn["shift"] == pytest.approx(quiet["shift"])
    assert with_newborn["shift_max"] == pytest.approx(quiet["shift_max"])


def test_memory_and_time_of_a_batch_do_not_follow_prototypes_times_features(make_classifier: MakeClassifier) -> None:
    width, classes = 2**22, 2000  # dense: 32 GiB
    random = np.random.default_rng(0)
    X = sp.csr_matrix(
        (np.ones(10 * classes), random.integers(0, width, 10 * classes), np.arange(0, 10 * classes + 1, 10)),
        (classes, width),
    )
    model = make_classifier(n_threads=-1)
    model.fit_batch(X, np.arange(classes))
    assert model.nbytes < 60 * width  # a few numbers per feature, and the entries
    start = time.process_time()
    for row in range(5):
        model.fit_batch(X[row], [row])
    assert time.process_time() - start < 5  # one pass over 32 GiB alone takes longer

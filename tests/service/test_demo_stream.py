"""The demo's generated stream: repeatable, text-like, drifting, with new classes."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from prototide.service import demo_stream
from prototide.service.demo_stream import COLUMNS, DemoStream


def test_same_seed_gives_the_same_stream_and_another_seed_another() -> None:
    first, again, other = DemoStream(seed=5), DemoStream(seed=5), DemoStream(seed=6)
    for _ in range(3):
        X, labels = first.batch(100)
        X_again, labels_again = again.batch(100)
        assert (X_again != X).nnz == 0
        assert labels == labels_again
        assert other.batch(100)[1] != labels


def test_rows_are_short_sparse_unit_documents_with_sorted_columns() -> None:
    X, labels = DemoStream(seed=1).batch(500)
    assert X.shape == (500, COLUMNS)
    assert X.dtype == np.float32
    assert len(labels) == 500
    assert X.has_sorted_indices
    assert np.diff(X.indptr).min() >= 8
    assert np.diff(X.indptr).max() <= demo_stream.WORDS
    np.testing.assert_allclose(np.asarray(X.multiply(X).sum(axis=1)).ravel(), 1.0, rtol=1e-5)


def test_new_classes_keep_appearing_ever_more_slowly() -> None:
    stream = DemoStream(seed=2)
    seen: set[str] = set()
    known_after = []
    for _ in range(40):
        seen.update(stream.batch(500)[1])
        known_after.append(len(seen))
    assert known_after[-1] > known_after[19] > known_after[4] > demo_stream.FIRST_CLASSES
    assert known_after[-1] - known_after[19] < known_after[19]
    assert known_after[-1] == pytest.approx(stream.classes, abs=3)
    assert "topic-000" in seen


def test_words_of_a_class_drift_gradually() -> None:
    stream = DemoStream(seed=3)
    at_start = _words_of("topic-000", stream)
    soon = _words_of("topic-000", stream)
    for _ in range(int(20 * demo_stream.ROWS_PER_REPLACED_WORD / 1000)):
        stream.batch(1000)
    later = _words_of("topic-000", stream)
    assert len(at_start & soon) / len(at_start) > 0.7
    assert 0.1 < len(at_start & later) / len(at_start) < 0.7


def test_exchange_hands_the_words_of_one_class_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_stream, "ROWS_PER_EXCHANGE", 2000)
    monkeypatch.setattr(demo_stream, "ROWS_PER_REPLACED_WORD", 10**9)
    stream = DemoStream(seed=4)
    labels = [f"topic-{c:03d}" for c in range(demo_stream.FIRST_CLASSES)]
    before = dict(zip(labels, _words_of_all(labels, stream, rows=1990), strict=True))
    assert stream.exchanges == 0
    stream.batch(10)
    assert stream.exchanges == 1
    after = dict(zip(labels, _words_of_all(labels, stream, rows=1990), strict=True))
    exchanged = [label for label in labels if len(before[label] & after[label]) < len(before[label]) / 2]
    assert len(exchanged) >= 2
    for label in exchanged:
        partner = max(before, key=lambda other: len(before[other] & after[label]))
        assert partner != label


def test_batches_are_endless() -> None:
    batches = DemoStream(seed=0).batches(rows=7)
    assert [next(batches)[0].shape[0] for _ in range(3)] == [7, 7, 7]


def _words_of(label: str, stream: DemoStream) -> set[int]:
    return _words_of_all([label], stream, rows=1500)[0]


def _words_of_all(labels: list[str], stream: DemoStream, rows: int) -> list[set[int]]:
    """Class words (those above the background) that a class used more than once."""
    X, drawn = stream.batch(rows)
    used: list[set[int]] = []
    for label in labels:
        own = X[[i for i, name in enumerate(drawn) if name == label]]
        counts = Counter(int(column) for column in own.indices if column >= demo_stream.BACKGROUND_WORDS)
        used.append({column for column, times in counts.items() if times > 1})
    return used

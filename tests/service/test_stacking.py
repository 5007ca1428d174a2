from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from prototide.service.stacking import stack, unknown, wrong
from prototide.service.wire import Batch, decode_batch, encode_batch

LABELS = st.one_of(st.none(), st.integers(-5, 5), st.sampled_from(["1", "a", "ä"]))


@st.composite
def batches(draw: Any) -> list[Batch]:
    made = []
    for _ in range(draw(st.integers(1, 5))):
        n, columns = draw(st.integers(1, 6)), draw(st.integers(1, 9))
        random = np.random.default_rng(draw(st.integers(0, 2**32)))
        X = sparse.random(n, columns, 0.4, format="csr", random_state=random, dtype=np.float32)
        labels = draw(st.one_of(st.none(), st.lists(LABELS, min_size=n, max_size=n)))
        weights = draw(st.one_of(st.none(), st.just(random.random(n, np.float32))))
        made.append(decode_batch(encode_batch(X, labels, weights=weights)))
    return made


@given(batches())
def test_rows_are_those_of_the_records_in_order(made: list[Batch]) -> None:
    rows = stack(made)
    width = max(batch.X.shape[1] for batch in made)
    expected = np.vstack([np.pad(b.X.toarray(), ((0, 0), (0, width - b.X.shape[1]))) for b in made])
    np.testing.assert_array_equal(rows.X.toarray(), expected)
    rows.X.check_format(full_check=True)
    assert len(rows) == len(expected)
    assert [rows.X[a:b].shape[0] for a, b in zip(rows.bounds, rows.bounds[1:], strict=False)] == [
        b.X.shape[0] for b in made
    ]


@given(batches())
def test_labels_and_weights_default_per_record(made: list[Batch]) -> None:
    rows = stack(made)
    labels = [label for batch in made for label in batch.labels]
    assert rows.labels == (None if all(label is None for label in labels) else labels)
    weights = [np.ones(len(b.labels)) if b.weights is None else b.weights for b in made]
    if all(batch.weights is None for batch in made):
        assert rows.weights is None
    else:
        np.testing.assert_array_equal(rows.weights, np.concatenate(weights))


@given(st.lists(st.tuples(LABELS, LABELS)))
def test_wrong_is_one_for_each_row_with_a_truth(pairs: list[tuple[Any, Any]]) -> None:
    predicted, truth = [a for a, _ in pairs], [b for _, b in pairs]
    assert wrong(predicted, truth).tolist() == [a != b for a, b in pairs if b is not None]
    assert unknown(predicted) == sum(label is None for label in predicted)


def test_one_as_text_and_as_number_are_two_classes() -> None:
    assert wrong([1, "1"], ["1", "1"]).tolist() == [True, False]


def test_without_any_truth_nothing_is_scored() -> None:
    assert wrong(["a"], None).shape == (0,)

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from prototide.core.labels import LARGEST_WEIGHT, UNLABELLED, Labels, as_array, checked_labels, checked_weights

labels = st.one_of(st.integers(-(2**63), 2**63 - 1), st.text())


@given(st.lists(st.one_of(labels, st.none())))
def test_plain_labels_pass_as_they_are(y: list[Any]) -> None:
    checked = checked_labels(y, len(y))
    assert checked == y
    assert list(map(type, checked)) == list(map(type, y))


@given(st.lists(labels))
def test_numbers_follow_the_order_of_arrival(y: list[Any]) -> None:
    known = Labels()
    different = list(dict.fromkeys(y))
    assert known.add([None, *y, None]) == len(different) == len(known)
    assert known.names == different
    assert known.add(y) == 0
    assert known.numbers([*different, None]).tolist() == [*range(len(different)), UNLABELLED]
    assert known.objects()[known.numbers(y)].tolist() == y
    assert known.objects()[UNLABELLED] is None


@given(st.lists(labels, unique=True))
def test_classes_are_sorted_ints_first(y: list[Any]) -> None:
    known = Labels(y)
    ordered = [known.names[number] for number in known.sorted_numbers()]
    assert ordered == sorted(i for i in y if isinstance(i, int)) + sorted(s for s in y if isinstance(s, str))


@given(st.lists(labels, unique=True))
def test_arrays_of_labels_keep_them_apart(y: list[Any]) -> None:
    assert as_array(y).tolist() == y


@pytest.mark.parametrize(
    ("y", "expected"),
    [
        (np.array([1, 2], np.int8), [1, 2]),
        (np.array([1, 2**63 - 1], np.uint64), [1, 2**63 - 1]),
        (np.array(["a", "bc"]), ["a", "bc"]),
        (np.array([1, "1", None], object), [1, "1", None]),
        (np.array([[3], [4]]), [3, 4]),
        (np.array([2.0, -1.0]), [2, -1]),
        ([np.int64(5), np.str_("x"), 2.0, np.float32(3), None], [5, "x", 2, 3, None]),
        ((1, 2), [1, 2]),
        (torch.tensor([7, 8]), [7, 8]),
        (None, [None, None]),
        (range(2), [0, 1]),
    ],
)
def test_other_containers_become_plain_labels(y: Any, expected: list[Any]) -> None:
    checked = checked_labels(y, len(expected))
    assert checked == expected
    assert list(map(type, checked)) == list(map(type, expected))


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (np.eye(2), r"one label per row, got an array of shape \(2, 2\).*argmax"),
        (np.array(3), "must be a list or array of labels, got array"),
        ([1, 2, 3], "X has 2 rows, y has 3 labels"),
        ([0.5, 1.0], "0.5"),
        (np.array([1.0, np.nan]), "nan"),
        (np.array([1.0, np.inf]), "inf"),
        (np.array([1.0, 2.0**60]), "Unknown label type"),  # a float cannot tell it from its neighbour
        ([1, float("nan")], "nan"),
        ([True, False], "True"),
        (np.array([True, False]), "booleans"),
        ([1, b"1"], "b'1' of type bytes"),
        ([1, 2**63], "9223372036854775808; integer labels must fit 64 bits"),
        ([1, -(2**63) - 1], "must fit 64 bits"),
        (np.array([1, 2**63], np.uint64), "9223372036854775808"),
        ([[1, 0], [0, 1]], r"\[1, 0\]|one label per row"),
        ([1, (2,)], "tuple"),
        ([1, 1j], "complex"),
    ],
)
def test_what_cannot_be_labels_is_named(y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked_labels(y, 2)


def test_weights_are_one_finite_number_per_row() -> None:
    assert checked_weights(None, 2).tolist() == [1, 1]
    assert checked_weights(3, 2).tolist() == [3, 3]
    assert checked_weights([0, 2], 2).tolist() == [0, 2]
    for wrong in ([1], [1, -1], [1, np.nan], [np.inf, 1], [[1, 1]]):
        with pytest.raises(ValueError, match="sample_weight"):
            checked_weights(wrong, 2)


@pytest.mark.parametrize(
    "wrong", [["a", "b"], [1j, 2], [[1], [1, 2]], [{}, 1], np.array(["2020"] * 2, "datetime64[Y]")]
)
def test_weights_that_are_no_real_numbers_are_named(wrong: Any) -> None:
    with pytest.raises(ValueError, match="sample_weight must hold one real number per row"):
        checked_weights(wrong, 2)


def test_a_weight_whose_square_vanishes_counts_as_none() -> None:
    assert checked_weights([1e-300, 1e-12, 1.0, 1e300], 4).tolist() == [0.0, 1e-12, 1.0, LARGEST_WEIGHT]

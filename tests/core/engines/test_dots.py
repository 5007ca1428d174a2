"""The products of the prototypes of each class: blocks that grow, and products anew from the entries."""

from __future__ import annotations

import numpy as np

from prototide.core.engines.dots import empty_dots, grown_dots, recompute_dots
from prototide.core.engines.tables import ACTIVE, FREE, TRIAL, Classes, Ints, Slots


def _sizes(*size: int) -> Ints:
    return np.array(size, np.int32)


def test_products_keep_their_place_when_blocks_and_classes_are_added() -> None:
    dots = empty_dots(_sizes(2, 3))
    dots.block(0)[:], dots.block(1)[:] = np.arange(4).reshape(2, 2), 10 + np.arange(9).reshape(3, 3)
    grown = grown_dots(dots, _sizes(4, 2, 1))
    assert grown.size.tolist() == [4, 3, 1]
    np.testing.assert_array_equal(grown.block(0)[:2, :2], dots.block(0))
    np.testing.assert_array_equal(grown.block(1), dots.block(1))
    assert grown.values.sum() == dots.values.sum()
    assert grown_dots(grown, _sizes(1, 1, 1)) is grown


def test_products_from_the_entries_are_those_of_the_centres() -> None:
    rng = np.random.default_rng()
    centres = rng.normal(size=(5, 7))
    kind = np.array([ACTIVE, TRIAL, ACTIVE, FREE, ACTIVE], np.int8)  # slots 0, 1, 4: class 1; slot 2: class 0
    cls, following = _sizes(1, 1, 0, 0, 1), _sizes(1, 4, -1, -1, -1)
    square, none = (centres**2).sum(axis=1), np.zeros(5, np.int64)
    slots = Slots(cls, kind, np.ones(5), square, none, none, following)
    zeros = np.zeros(2, np.int64)
    classes = Classes(_sizes(1, 2), _sizes(-1, 1), zeros, zeros, zeros, zeros, zeros, zeros, _sizes(2, 0))
    rank, dots = _sizes(2, 0, 1, 0, 1), empty_dots(_sizes(3, 4))

    def entries_of(which: Ints) -> tuple[Ints, Ints, np.ndarray]:
        slot, feature = np.nonzero(np.isin(np.arange(5), which)[:, None] & np.ones((5, 7), np.bool_))
        return feature.astype(np.int32), slot.astype(np.int32), centres[slot, feature]

    recompute_dots(dots, slots, classes, rank, entries_of)
    assert dots.block(0)[1, 1] == square[2]
    here = [0, 1, 4]
    np.testing.assert_allclose(dots.block(1)[np.ix_(rank[here], rank[here])], centres[here] @ centres[here].T)
    assert np.count_nonzero(dots.block(1)) == 9

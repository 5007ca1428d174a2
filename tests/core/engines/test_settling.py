"""Slots that may be taken again."""

from __future__ import annotations

import numpy as np
import pytest

from prototide.core.engines.deciding import DEAD
from prototide.core.engines.settling import free_dead
from prototide.core.engines.tables import ACTIVE, FREE, TRIAL, Slots


@pytest.mark.parametrize("count", [1, 7, 8, 16, 17, 41, 300])
@pytest.mark.parametrize("kinds", [(ACTIVE, TRIAL), (FREE, ACTIVE, TRIAL, DEAD), (DEAD,)])
def test_only_dead_slots_are_freed(count: int, kinds: tuple[int, ...]) -> None:
    random = np.random.default_rng(count)
    slots = Slots(
        random.integers(9, size=count).astype(np.int32),
        random.choice(kinds, count).astype(np.int8),
        random.random(count),
        random.random(count),
        np.arange(count),
        random.integers(1, 9, size=count),
        random.integers(9, size=count).astype(np.int32),
    )
    freed = (0, FREE, 0, 0, -1, 0, -1)
    expected = [
        np.where(slots.kind == DEAD, value, array).astype(array.dtype)
        for array, value in zip(slots, freed, strict=True)
    ]
    free_dead(slots)
    for array, then in zip(slots, expected, strict=True):
        np.testing.assert_array_equal(array, then)

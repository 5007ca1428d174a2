"""The prototypes' entries, by feature: posting lists of the rare features, dense rows of the hot ones.

    rare feature j:  (slot, M, R, pmi) for every prototype that has an entry there, slots ascending, in one pool
    hot feature h:   M, R, pmi of every slot, cut into tiles of `TILE` slots: hot_M[tile, h, slot in the tile]

Entries change in `changing`, are dropped in `dropping` and copied in `copying`; here they move between the two forms.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange

from prototide.core.compiling import kernel
from prototide.core.engines.sketch import Sketch, note
from prototide.core.engines.tables import Floats, Ints, Longs

TILE = 256


class Index(NamedTuple):
    """Entries by feature. The arrays of R are empty in a model without corrections, those of pmi without its weight."""

    start: Longs  # (features,) where the list begins in the pool
    length: Ints  # (features,) entries, 0 for hot features
    room: Ints  # (features,) entries that fit
    hot: Ints  # (features,) row in the dense part, -1 for rare features
    slot: Ints  # (pool,)
    M: Floats  # (pool,)
    R: Floats  # (pool,) or (0,)
    hot_M: Floats  # (tiles, hot features, TILE)
    hot_R: Floats  # the same, or (0, 0, TILE)
    pmi: Floats  # (pool,) how much of R is mutual information; (0,) in a model without
    hot_pmi: Floats  # like hot_R


@kernel(parallel=True)
def move_lists(index: Index, start: Longs, pool: Floats, moved: Floats) -> None:
    """Copies every list of one pool array to its new place."""
    for j in prange(start.size):
        for i in range(index.length[j]):
            moved[start[j] + i] = pool[index.start[j] + i]


@kernel(parallel=True)
def heat(index: Index, features: Ints, first_row: int, sketch: Sketch) -> None:
    """Makes rare features hot: their entries move to the dense rows first_row, first_row + 1, ..., which are zeros."""
    for k in prange(features.size):
        _heat_feature(index, features[k], first_row + k, sketch)


@kernel()
def _heat_feature(index: Index, j: int, h: int, sketch: Sketch) -> None:
    corrected = index.R.size > 0
    for i in range(index.start[j], index.start[j] + index.length[j]):
        p = index.slot[i]
        index.hot_M[p // TILE, h, p % TILE] = index.M[i]
        note(sketch.M, sketch.step_M, sketch.stale, h, p, index.M[i])
        if corrected:
            index.hot_R[p // TILE, h, p % TILE] = index.R[i]
            note(sketch.R, sketch.step_R, sketch.stale, h, p, index.R[i])
        if index.pmi.size > 0:
            index.hot_pmi[p // TILE, h, p % TILE] = index.pmi[i]
    index.hot[j], index.length[j], index.room[j] = h, 0, 0


@kernel(parallel=True)
def hot_counts(index: Index, hot_rows: int) -> Ints:
    """(hot features,) entries that are not 0."""
    count = np.zeros(hot_rows, np.int32)
    for h in prange(hot_rows):
        for tile in range(index.hot_M.shape[0]):
            for q in range(TILE):
                count[h] += index.hot_M[tile, h, q] != 0 or (index.R.size > 0 and index.hot_R[tile, h, q] != 0)
    return count


@kernel()
def cool(index: Index, features: Ints, start: Longs) -> None:
    """Makes hot features rare: their entries move to lists that begin at ``start``, room made by the caller."""
    corrected = index.R.size > 0
    for k in range(features.size):
        j, at = features[k], start[k]
        h = index.hot[j]
        for tile in range(index.hot_M.shape[0]):
            for q in range(TILE):
                M = index.hot_M[tile, h, q]
                R = index.hot_R[tile, h, q] if corrected else 0 * M
                if M != 0 or R != 0:
                    index.slot[at], index.M[at] = tile * TILE + q, M
                    if corrected:
                        index.R[at] = R
                    if index.pmi.size > 0:
                        index.pmi[at] = index.hot_pmi[tile, h, q]
                    at += 1
        index.hot[j], index.start[j], index.length[j] = -1, start[k], at - start[k]


def reserve_pool(index: Index, size: int) -> None:
    """Room in the pool for so many entries, and an eighth more where it must grow."""
    if size <= index.slot.size:
        return
    for array in (index.slot, index.M, index.R, index.pmi):
        if array.size or array is index.slot:
            array.resize(size + size // 8, refcheck=False)  # realloc: no second copy of a large pool


def packed_room(length: Ints) -> Longs:
    """Entries that fit in lists of some lengths when they have been packed: an eighth more."""
    return length.astype(np.int64) + length // 8 + (length > 0)


def empty_index(features: int, corrected: bool, informed: bool, dtype: type[np.floating[Any]]) -> Index:
    """No entry; R only in models with corrections, pmi only in models that use it."""
    pool = 4096
    return Index(
        np.zeros(features, np.int64), np.zeros(features, np.int32), np.zeros(features, np.int32), np.full(features,
        -1, np.int32),
        np.empty(pool, np.int32), np.empty(pool, dtype), np.empty(pool if corrected else 0, dtype),
        np.zeros((0, 0, TILE), dtype), np.zeros((0, 0, TILE), dtype),
        np.empty(pool if informed else 0, dtype), np.zeros((0, 0, TILE), dtype),
    )  # fmt: skip

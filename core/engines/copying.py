"""Entries copied out of the index, of some prototypes or all, and an index made of such copies."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from prototide.core.compiling import kernel
from prototide.core.engines.index import TILE, Index, empty_index, reserve_pool
from prototide.core.engines.tables import Flags, Floats, Ints, Longs


class Copied(NamedTuple):
    """Entries, features ascending. R and pmi are zeros in a model without."""

    feature: Ints
    slot: Ints
    M: Floats
    R: Floats
    pmi: Floats


def entries_of(index: Index, flag: Flags) -> Copied:
    """All entries of the flagged slots; of hot features those that are 0, too. ``flag``: (slots,)"""
    count = count_flagged(index, flag)
    count[index.hot >= 0] = flag.sum()
    first = np.append(0, np.cumsum(count, dtype=np.int64))
    found = Copied(np.empty(first[-1], np.int32), *_room_for(index, int(first[-1])))
    collect(index, flag, first, flag.size, *found)
    return found


def arrays_of(index: Index, flag: Flags) -> dict[str, NDArray[Any]]:
    """The entries of the flagged slots as named arrays; ``entry.count``: (features,) how many each has."""
    count = count_kept(index, flag)
    first = np.append(0, np.cumsum(count, dtype=np.int64))
    slot, M, R, pmi = _room_for(index, int(first[-1]))
    collect_kept(index, flag, first, slot, M, R, pmi)
    return {"entry.count": count, "entry.slot": slot, "entry.centre": M, "entry.correction": R, "entry.pmi": pmi}


def index_of(arrays: dict[str, NDArray[Any]], corrected: bool, informed: bool, dtype: type[np.floating[Any]]) -> Index:
    """The index with the entries of `arrays_of`, all of them listed; R and pmi where they are asked for."""
    count = arrays["entry.count"]
    end = int(count.sum())
    index = empty_index(count.size, corrected, informed, dtype)
    reserve_pool(index, end)
    index.length[:] = index.room[:] = count
    index.start[:] = np.cumsum(count, dtype=np.int64) - count
    index.slot[:end], index.M[:end] = arrays["entry.slot"], arrays["entry.centre"]
    if corrected:
        index.R[:end] = arrays["entry.correction"]
    if informed:
        index.pmi[:end] = arrays["entry.pmi"]
    return index


def _room_for(index: Index, entries: int) -> tuple[Ints, Floats, Floats, Floats]:
    M, R, pmi = (np.empty(entries, index.M.dtype) for _ in range(3))
    return np.empty(entries, np.int32), M, R, pmi


@kernel(parallel=True)
def count_flagged(index: Index, flag: Flags) -> Ints:
    """(features,) rare entries whose slot is flagged."""
    found = np.zeros(index.start.size, np.int32)
    for j in prange(index.start.size):
        for i in range(index.start[j], index.start[j] + index.length[j]):
            found[j] += flag[index.slot[i]]
    return found


@kernel()  # not parallel: a checkpoint is collected beside the learner
def count_kept(index: Index, flag: Flags) -> Ints:
    """(features,) entries of flagged slots: listed ones, and hot ones whose M or R is not 0."""
    corrected = index.R.size > 0
    found = np.zeros(index.start.size, np.int32)
    for j in range(index.start.size):
        h = index.hot[j]
        if h >= 0:
            for p in range(flag.size):
                row = p // TILE, h, p % TILE
                found[j] += flag[p] and (index.hot_M[row] != 0 or (corrected and index.hot_R[row] != 0))
        else:
            for i in range(index.start[j], index.start[j] + index.length[j]):
                found[j] += flag[index.slot[i]]
    return found


@kernel()  # not parallel: a checkpoint is collected beside the learner
def collect_kept(index: Index, flag: Flags, first: Longs, slot: Ints, M: Floats, R: Floats, pmi: Floats) -> None:
    """Copies the entries that `count_kept` counts: feature j's to positions first[j].. of the four arrays."""
    corrected, informed = index.R.size > 0, index.pmi.size > 0
    for j in range(index.start.size):
        at = first[j]
        h = index.hot[j]
        if h >= 0:
            for p in range(flag.size):
                row = p // TILE, h, p % TILE
                if flag[p] and (index.hot_M[row] != 0 or (corrected and index.hot_R[row] != 0)):
                    slot[at], M[at] = p, index.hot_M[row]
                    R[at] = index.hot_R[row] if corrected else 0
                    pmi[at] = index.hot_pmi[row] if informed else 0
                    at += 1
        else:
            for i in range(index.start[j], index.start[j] + index.length[j]):
                if flag[index.slot[i]]:
                    slot[at], M[at] = index.slot[i], index.M[i]
                    R[at] = index.R[i] if corrected else 0
                    pmi[at] = index.pmi[i] if informed else 0
                    at += 1


@kernel(parallel=True)
def collect(
    index: Index, flag: Flags, first: Longs, used: int, feature: Ints, slot: Ints, M: Floats, R: Floats, pmi: Floats
) -> None:
    """Copies the entries of flagged slots: feature j's to positions first[j].. of the five arrays."""
    corrected, informed = index.R.size > 0, index.pmi.size > 0
    for j in prange(index.start.size):
        at = first[j]
        h = index.hot[j]
        if h >= 0:
            for p in range(used):
                if flag[p]:
                    feature[at], slot[at], M[at] = j, p, index.hot_M[p // TILE, h, p % TILE]
                    R[at] = index.hot_R[p // TILE, h, p % TILE] if corrected else 0
                    pmi[at] = index.hot_pmi[p // TILE, h, p % TILE] if informed else 0
                    at += 1
        else:
            for i in range(index.start[j], index.start[j] + index.length[j]):
                if flag[index.slot[i]]:
                    feature[at], slot[at], M[at] = j, index.slot[i], index.M[i]
                    R[at] = index.R[i] if corrected else 0
                    pmi[at] = index.pmi[i] if informed else 0
                    at += 1

"""The prototypes' entries, by feature: posting lists of the rare features, dense rows of the hot ones.

    rare feature j:  (slot, M, R, pmi) for every prototype that has an entry there, slots ascending, in one pool
    hot feature h:   M, R, pmi of every slot, cut into tiles of `TILE` slots: hot_M[tile, h, slot in the tile]

Entries change in `changing`; here they are dropped, moved, counted and copied.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange

from prototide.core.compiling import kernel
from prototide.core.engines.budget import bucket
from prototide.core.engines.sketch import Sketch, note
from prototide.core.engines.tables import Flags, Floats, Ints, Longs, Pool, Reals

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


@kernel(parallel=True)
def largest_parts(index: Index, held: Ints, scale: Reals, omega: float, shards: Reals) -> None:
    """shards[s, p] <- largest part of an entry of slot p in its score, over the features of shard s.

    A part is without mutual information, as truncation measures it; see `maintenance.parts`.
    ``held``: the features that have entries; feature j is in shard j modulo the number of shards.
    """
    for s in prange(shards.shape[0]):
        _largest_in_shard(index, held, scale, omega, shards[s], s, shards.shape[0])


@kernel()
def _largest_in_shard(
    index: Index, held: Ints, scale: Reals, omega: float, largest: Reals, s: int, shards: int
) -> None:
    corrected, informed = index.R.size > 0, index.pmi.size > 0
    for j in held:
        if j % shards != s:
            continue
        h = index.hot[j]
        if h >= 0:
            for first in range(0, largest.size, TILE):
                tile, here = first // TILE, slice(first, min(first + TILE, largest.size))
                R = index.hot_R[tile, h] if corrected else index.R
                pmi = index.hot_pmi[tile, h] if informed else index.pmi
                _largest_in_row(index.hot_M[tile, h], R, pmi, scale[here], omega, largest[here])
        for i in range(index.start[j], index.start[j] + index.length[j]):
            p = index.slot[i]
            R = index.R[i] if corrected else 0 * index.M[i]
            pmi = index.pmi[i] if informed else 0 * R
            largest[p] = max(largest[p], abs(index.M[i]) * scale[p], abs(R - pmi) / omega)


@kernel()
def _largest_in_row(M: Floats, R: Floats, pmi: Floats, scale: Reals, omega: float, largest: Reals) -> None:
    """Of one hot feature in the slots of a tile; ``R`` and ``pmi`` may be empty."""
    for q in range(largest.size):
        part = abs(M[q]) * scale[q]
        largest[q] = part if part > largest[q] else largest[q]
    if pmi.size > 0:
        for q in range(largest.size):
            part = abs(R[q] - pmi[q]) / omega
            largest[q] = part if part > largest[q] else largest[q]
    elif R.size > 0:
        for q in range(largest.size):
            part = abs(R[q]) / omega
            largest[q] = part if part > largest[q] else largest[q]


@kernel(parallel=True)
def part_counts(index: Index, held: Ints, below: Reals, scale: Reals, omega: float, shards: Pool) -> None:
    """shards[s, b] += listed entries of bucket b, of those whose part is below below[slot], in shard s's features."""
    corrected = index.R.size > 0
    for s in prange(shards.shape[0]):
        for j in held:
            if j % shards.shape[0] != s:
                continue
            for i in range(index.start[j], index.start[j] + index.length[j]):
                p = index.slot[i]
                part = abs(index.M[i]) * scale[p]
                if corrected:
                    part = max(part, abs(index.R[i]) / omega)
                if part < below[p]:
                    shards[s, bucket(part)] += 1


@kernel(parallel=True)
def drop_entries(
    index: Index, held: Ints, least: Reals, scale: Reals, omega: float, informed: bool, kept: Reals
) -> None:
    """Of slots with least[p] > 0, drops the entries whose part in the score is below it (inf: all of them).

    ``informed``: whether the mutual information counts; see `maintenance.parts`.
    kept[s, p] <- |M_p|^2 of what is left, in the features of shard s.
    """
    for s in prange(kept.shape[0]):
        _drop_in_shard(index, held, least, scale, omega, informed, kept, s)


@kernel()
def _drop_in_shard(
    index: Index, held: Ints, least: Reals, scale: Reals, omega: float, informed: bool, kept: Reals, s: int
) -> None:
    corrected, kept_apart = index.R.size > 0, index.pmi.size > 0
    for j in held:
        if j % kept.shape[0] != s:
            continue
        h = index.hot[j]
        if h >= 0:
            for first in range(0, least.size, TILE):
                tile, here = first // TILE, slice(first, min(first + TILE, least.size))
                R = index.hot_R[tile, h] if corrected else index.R
                pmi = index.hot_pmi[tile, h] if kept_apart else index.pmi
                _drop_in_row(index.hot_M[tile, h], R, pmi, least[here], scale[here], omega, informed, kept[s][here])
            continue
        begin, end = index.start[j], index.start[j] + index.length[j]
        R = index.R[begin:end] if corrected else index.R
        pmi = index.pmi[begin:end] if kept_apart else index.pmi
        index.length[j] = _drop_in_list(
            index.slot[begin:end], index.M[begin:end], R, pmi, least, scale, omega, informed, kept[s]
        )


@kernel()
def _drop_in_row(
    M: Floats, R: Floats, pmi: Floats, least: Reals, scale: Reals, omega: float, informed: bool, kept: Reals
) -> None:
    """Of one hot feature in the slots of a tile; ``R`` and ``pmi`` may be empty. Without branches: vectorised."""
    nothing = M.dtype.type(0)
    if R.size == 0:
        for q in range(least.size):
            m = M[q] if abs(M[q]) * scale[q] >= least[q] else nothing
            M[q] = m
            kept[q] += float(m) * float(m) if least[q] > 0 else 0.0
        return
    for q in range(least.size):
        correction = R[q] - (pmi[q] if pmi.size > 0 and not informed else nothing)
        stays = max(abs(M[q]) * scale[q], abs(correction) / omega) >= least[q]
        m = M[q] if stays else nothing
        M[q], R[q] = m, R[q] if stays else nothing
        if pmi.size > 0:
            pmi[q] = pmi[q] if stays else nothing
        kept[q] += float(m) * float(m) if least[q] > 0 else 0.0


@kernel()
def _drop_in_list(
    slot: Ints, M: Floats, R: Floats, pmi: Floats, least: Reals, scale: Reals, omega: float, informed: bool, kept: Reals
) -> int:
    """How many entries are left; ``R`` and ``pmi`` may be empty."""
    left = 0
    for i in range(slot.size):
        p = slot[i]
        if least[p] > 0:
            correction = R[i] if R.size > 0 else 0 * M[i]
            if pmi.size > 0 and not informed:
                correction -= pmi[i]
            if max(abs(M[i]) * scale[p], abs(correction) / omega) < least[p]:
                continue
            kept[p] += float(M[i]) * float(M[i])
        if left < i:
            slot[left], M[left] = p, M[i]
            if R.size > 0:
                R[left] = R[i]
            if pmi.size > 0:
                pmi[left] = pmi[i]
        left += 1
    return left


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

"""Scores over the index: all slots of a block of rows.

    s_p = tau M_p . x / |M_p| + R_p . x / omega

In half precision s_p is the product with one rounded vector (`half`). Every sum runs over a row's rare features first,
then its hot ones, in the order of the columns and in the storage's format; `shortlist`, which completes few slots, adds
in the same order: both ways give the same bits.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from prototide.core.compiling import kernel
from prototide.core.engines import half
from prototide.core.engines.index import TILE
from prototide.core.engines.tables import Floats, Ints, Longs, Reals

CHUNK_ROWS = 32  # of a block, for which a thread takes a tile: small models have few tiles


@kernel(parallel=True)
def accumulate(
    indptr: Longs, indices: Ints, x: Reals, start: Longs, length: Ints, hot: Ints, slot: Ints, M: Floats, R: Floats,
    hot_M: Floats, hot_R: Floats, scale: Floats, per_omega: float, mantissa_bits: int,
    sum_M: Floats, sum_R: Floats, sum_V: Floats,
) -> None:  # fmt: skip
    """sum_M[t, p] <- M_p . x_t, sum_R[t, p] <- R_p . x_t, sum_V[t, p] <- V_p . x_t for all slots.

    Without corrections sum_R has no columns, without half precision sum_V. ``scale``: tau / |M_p| of the slots in use.
    """
    count = indptr.size - 1
    for t in prange(count):
        first, last = indptr[t], indptr[t + 1]
        _add_rare(indices[first:last], x[first:last], start, length, slot, M, sum_M[t])
        if sum_R.size > 0:
            _add_rare(indices[first:last], x[first:last], start, length, slot, R, sum_R[t])
        if sum_V.size > 0:
            half.add_rare(
                indices[first:last], x[first:last], start, length, slot, M, R, scale, per_omega, mantissa_bits, sum_V[t]
            )
    chunks = (count + CHUNK_ROWS - 1) // CHUNK_ROWS
    for item in prange((scale.size + TILE - 1) // TILE * chunks):
        tile, begin = item // chunks, item % chunks * CHUNK_ROWS
        low, high = tile * TILE, min(tile * TILE + TILE, scale.size)
        for t in range(begin, min(begin + CHUNK_ROWS, count)):
            first, last = indptr[t], indptr[t + 1]
            add_hot(indices[first:last], x[first:last], hot, hot_M[tile], sum_M[t, low:high])
            if sum_R.size > 0:
                add_hot(indices[first:last], x[first:last], hot, hot_R[tile], sum_R[t, low:high])
            if sum_V.size > 0:
                half.add_hot(
                    indices[first:last], x[first:last], hot, hot_M, hot_R, tile, scale[low:high], per_omega,
                    mantissa_bits, sum_V[t, low:high],
                )  # fmt: skip


@kernel()
def _add_rare(ix: Ints, x: Reals, start: Longs, length: Ints, slot: Ints, values: Floats, total: Floats) -> None:
    """total[p] <- the rare features' part of one row's product with every slot."""
    total[:] = 0
    for i in range(ix.size):
        j = ix[i]
        if j < start.size and length[j] > 0:
            weight = values.dtype.type(x[i])
            for k in range(start[j], start[j] + length[j]):
                total[slot[k]] += weight * values[k]


@kernel()
def add_hot(ix: Ints, x: Reals, hot: Ints, tile: Floats, total: Floats) -> None:
    """total[p] += the hot features' part, for the slots of one tile."""
    for i in range(ix.size):
        j = ix[i]
        if j < hot.size and hot[j] >= 0:
            weight, line = tile.dtype.type(x[i]), tile[hot[j]]
            for p in range(total.size):
                total[p] += weight * line[p]


@kernel(parallel=True)
def digest(
    sum_M: Floats, sum_R: Floats, sum_V: Floats, own: Ints, cls: Ints, next_slot: Ints, first_slot: Ints, trial: Ints,
    scale: Floats, per_omega: float,
    trials: Ints, top_class: Ints, top_slot: Ints, top_score: Reals, own_M: Reals, own_R: Reals,
    steal_count: Longs, steal_class: Ints, steal_score: Reals,
) -> None:  # fmt: skip
    """Of each row of a block: its best classes, its own class's products, and the trials that could steal it.

    ``cls``: class of each slot, -1 unless active. ``scale``: tau / |M_p|. ``trials``: the classes that have one.
    own_M, own_R: (rows, longest chain) in chain order, or empty. steal_class, steal_score: (rows, room); steal_count
    may exceed the room, then the rest is missing.
    """
    for t in prange(own.size):
        score = np.empty(cls.size, scale.dtype)
        scores(sum_M[t], sum_R[t], sum_V[t], scale, per_omega, score)
        best = np.full(first_slot.size, -1, np.int32)
        _best_slots(score, cls, best)
        top_of(score, best, top_class[t], top_slot[t], top_score[t])
        if own_M.size > 0 and own[t] >= 0:
            p, place = first_slot[own[t]], 0
            while p >= 0:
                own_M[t, place] = sum_M[t, p]
                own_R[t, place] = sum_R[t, p] if sum_R.size > 0 else 0
                place += 1
                p = next_slot[p]
        if trials.size > 0:
            wrong = -np.inf
            for h in range(top_class.shape[1]):
                if top_class[t, h] >= 0 and top_class[t, h] != own[t]:
                    wrong = top_score[t, h]
                    break
            found = 0
            for k in range(trials.size):
                c = trials[k]
                if c != own[t] and best[c] >= 0:
                    value = float(scale[trial[c]] * sum_M[t, trial[c]])
                    if sum_R.size > 0:
                        value += per_omega * sum_R[t, best[c]]
                    if value > wrong:
                        if found < steal_class.shape[1]:
                            steal_class[t, found], steal_score[t, found] = c, value
                        found += 1
            steal_count[t] = found


@kernel(parallel=True)
def class_scores(
    sum_M: Floats, sum_R: Floats, sum_V: Floats, cls: Ints, scale: Floats, per_omega: float, out: Reals
) -> None:
    """out[t, c] <- score of class c, -inf where it has no active prototype."""
    for t in prange(out.shape[0]):
        score = np.empty(cls.size, scale.dtype)
        scores(sum_M[t], sum_R[t], sum_V[t], scale, per_omega, score)
        best = np.full(out.shape[1], -1, np.int32)
        _best_slots(score, cls, best)
        for c in range(best.size):
            out[t, c] = score[best[c]] if best[c] >= 0 else -np.inf


@kernel()
def scores(sum_M: Floats, sum_R: Floats, sum_V: Floats, scale: Floats, per_omega: float, score: Floats) -> None:
    """score[p] <- score of one row, of which all sums are complete."""
    if sum_V.size > 0:
        score[:] = sum_V
    elif sum_R.size > 0:
        part = scale.dtype.type(per_omega)
        for p in range(score.size):
            score[p] = scale[p] * sum_M[p] + part * sum_R[p]
    else:
        for p in range(score.size):
            score[p] = scale[p] * sum_M[p]


@kernel()
def _best_slots(score: Floats, cls: Ints, best: Ints) -> None:
    """best[c] <- the class's slot of the highest score, the lowest on a tie."""
    for p in range(score.size):
        c = cls[p]
        if c >= 0 and (best[c] < 0 or score[p] > score[best[c]]):
            best[c] = p


@kernel()
def top_of(score: Floats, best: Ints, top_class: Ints, top_slot: Ints, top_score: Reals) -> None:
    """The best classes, best first; equal scores: lowest slot first. ``best``: each class's best slot or -1."""
    depth, found, least = top_class.size, 0, -np.inf
    for c in range(best.size):
        p = best[c]
        if p < 0 or score[p] < least:
            continue
        found = insert_class(c, p, score[p], found, top_class, top_slot, top_score)
        if found == depth:
            least = top_score[depth - 1]
    for at in range(found, depth):
        top_class[at], top_slot[at], top_score[at] = -1, -1, -np.inf


@kernel()
def insert_class(c: int, p: int, score: float, found: int, top_class: Ints, top_slot: Ints, top_score: Reals) -> int:
    """Puts a class that is not in the list where it belongs; how many there are then."""
    depth = top_class.size
    if found == depth and not before(score, p, top_score[depth - 1], top_slot[depth - 1]):
        return found
    at = min(found, depth - 1)
    while at > 0 and before(score, p, top_score[at - 1], top_slot[at - 1]):
        top_class[at], top_slot[at], top_score[at] = top_class[at - 1], top_slot[at - 1], top_score[at - 1]
        at -= 1
    top_class[at], top_slot[at], top_score[at] = c, p, score
    return min(found + 1, depth)


@kernel()
def before(score: float, slot: int, other_score: float, other_slot: int) -> bool:
    """The order of classes: higher score, then lower slot."""
    return score > other_score or (score == other_score and slot < other_slot)


@kernel(error_model="numpy")
def rescale(square: Reals, slots: Ints, tau: float, least: float, scale: Floats) -> None:
    """scale[p] <- tau / |M_p| for some slots; 0 where |M_p| is not above ``least``."""
    for p in slots:
        length = np.sqrt(square[p])
        scale[p] = tau / length if length > least else 0.0

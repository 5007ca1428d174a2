"""The best classes of a row, exactly, without the exact score of every slot.

1. The rare features' part of every slot's M . x and R . x, exactly, from the posting lists.
2. The hot features' part from their entries in 8 bits, with what that may be off: an upper bound of every slot's score
   (`bounds`).
3. The slots of the highest bounds are completed exactly, then every other one whose bound is above the last class that
   is on the list. Where too many are left, all slots are.

A completed score has the same bits as in `index_scoring`, since it adds the same numbers in the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import prange
from numpy.typing import NDArray

from prototide.core.compiling import kernel
from prototide.core.engines import bounds, half
from prototide.core.engines.bounds import BLOCK, EPSILON, NEVER
from prototide.core.engines.index import TILE
from prototide.core.engines.index_scoring import add_hot, before, insert_class, scores, top_of
from prototide.core.engines.intrinsics import prefetch
from prototide.core.engines.tables import ACTIVE, Floats, Ints, Longs, Reals

CHUNK = 16  # rows that share their scratch arrays
AHEAD = 4  # lists that are on their way from memory


@kernel(parallel=True)
def shortlist(
    indptr: Longs, indices: Ints, x: Reals, own: Ints,
    start: Longs, length: Ints, hot: Ints, slot: Ints, M: Floats, R: Floats, hot_M: Floats, hot_R: Floats,
    near_M: NDArray[np.int8], near_R: NDArray[np.int8], step_M: Floats, step_R: Floats,
    kind: NDArray[np.int8], cls: Ints, next_slot: Ints, first_slot: Ints, trial: Ints, trials: Ints,
    scale: Floats, per_omega: float, mantissa_bits: int, most: int,
    top_class: Ints, top_slot: Ints, top_score: Reals, own_M: Reals, own_R: Reals,
    steal_count: Longs, steal_class: Ints, steal_score: Reals,
) -> None:  # fmt: skip
    """What `index_scoring.digest` finds for the same arguments. ``scale``: tau / |M_p| of the slots in use."""
    for chunk in prange((own.size + CHUNK - 1) // CHUNK):
        used, corrected = scale.size, R.size > 0
        sum_M, near = np.empty(used, scale.dtype), np.empty(used, np.float32)
        sum_R = np.empty(used if corrected else 0, scale.dtype)
        sum_V = np.empty(used if mantissa_bits <= half.FLOAT16_BITS else 0, scale.dtype)
        push = np.empty(used if corrected else 0, np.float32)
        bound, highest = np.empty(used, np.float32), np.empty((used + BLOCK - 1) // BLOCK, np.float32)
        for t in range(chunk * CHUNK, min(chunk * CHUNK + CHUNK, own.size)):
            ix, values = indices[indptr[t] : indptr[t + 1]], x[indptr[t] : indptr[t + 1]]
            # 1. and 2.
            _add_rare(ix, values, start, length, slot, M, R, sum_M, sum_R)
            if sum_V.size > 0:
                half.add_rare(ix, values, start, length, slot, M, R, scale, per_omega, mantissa_bits, sum_V)
            warm, warm_x = _hot_part(ix, values, hot, scale)
            bounds.add_near(near_M, warm, warm_x, near)
            if corrected:
                bounds.add_near(near_R, warm, warm_x, push)
            reach, slack = bounds.reach_of(warm_x, ix.size, mantissa_bits)
            if sum_V.size > 0:
                bounds.of_rounded(
                    sum_V, near, push, step_M, step_R, scale, per_omega, mantissa_bits, reach, slack, kind, bound
                )
            elif corrected:
                bounds.of_both(sum_M, near, sum_R, push, step_M, step_R, scale, per_omega, reach, slack, kind, bound)
            else:
                bounds.of_centres(sum_M, near, step_M, scale, reach, slack, kind, bound)
            bounds.highest_of_blocks(bound, highest)
            # 3.
            if _complete(
                warm, warm_x, hot_M, hot_R, cls, scale, per_omega, mantissa_bits, most, sum_M, sum_R, sum_V, bound,
                highest, top_class[t], top_slot[t], top_score[t],
            ):  # fmt: skip
                _add_all_hot(ix, values, hot, hot_M, hot_R, scale, per_omega, mantissa_bits, sum_M, sum_R, sum_V)
                warm, warm_x = warm[:0], warm_x[:0]
                _rank_all(kind, cls, first_slot.size, scale, per_omega, sum_M, sum_R, sum_V,
                          top_class[t], top_slot[t], top_score[t])  # fmt: skip
                reach = 0.0
            if own_M.size > 0 and own[t] >= 0:
                p, place = first_slot[own[t]], 0
                while p >= 0:
                    own_M[t, place], own_R[t, place] = _products(warm, warm_x, hot_M, hot_R, p, sum_M, sum_R)
                    place += 1
                    p = next_slot[p]
            if trials.size > 0:
                steal_count[t] = _thieves(
                    own[t], warm, warm_x, hot_M, hot_R, sum_M, sum_R, sum_V, near, push, step_M, step_R, reach, slack,
                    scale, per_omega, mantissa_bits, kind, next_slot, first_slot, trial, trials, top_class[t],
                    top_score[t], steal_class[t], steal_score[t],
                )  # fmt: skip


@kernel()
def _add_rare(
    ix: Ints, x: Reals, start: Longs, length: Ints, slot: Ints, M: Floats, R: Floats, sum_M: Floats, sum_R: Floats
) -> None:
    """The rare features' part of a row's products with every slot."""
    sum_M[:] = 0
    sum_R[:] = 0
    for i in range(ix.size):
        j = ix[i]
        if i + 2 * AHEAD < ix.size and ix[i + 2 * AHEAD] < start.size:
            prefetch(start, ix[i + 2 * AHEAD])
            prefetch(length, ix[i + 2 * AHEAD])
        if i + AHEAD < ix.size and ix[i + AHEAD] < start.size:
            _prefetch_list(slot, M, R, start[ix[i + AHEAD]])
        if j >= start.size:
            continue
        weight, begin, end = M.dtype.type(x[i]), start[j], start[j] + length[j]
        here, m, r = slot[begin:end], M[begin:end], R[begin:end]
        if sum_R.size > 0:
            for k in range(here.size):
                p = np.uint32(here[k])  # no check for a negative index
                sum_M[p] += weight * m[k]
                sum_R[p] += weight * r[k]
        else:
            for k in range(here.size):
                sum_M[np.uint32(here[k])] += weight * m[k]


@kernel()
def _prefetch_list(slot: Ints, M: Floats, R: Floats, begin: int) -> None:
    """Where a list begins; the processor finds out by itself that it goes on."""
    for at in range(begin, begin + 96, 16):
        prefetch(slot, at)
        prefetch(M, at)
        if R.size > 0:
            prefetch(R, at)


@kernel()
def _hot_part(ix: Ints, x: Reals, hot: Ints, scale: Floats) -> tuple[Ints, Floats]:
    """(hot features' numbers, values) of a row."""
    warm, warm_x, n = np.empty(ix.size, np.int32), np.empty(ix.size, scale.dtype), 0
    for i in range(ix.size):
        if ix[i] < hot.size and hot[ix[i]] >= 0:
            warm[n], warm_x[n] = hot[ix[i]], x[i]
            n += 1
    return warm[:n], warm_x[:n]


@kernel()
def _complete(
    warm: Ints, warm_x: Floats, hot_M: Floats, hot_R: Floats, cls: Ints, scale: Floats, per_omega: float,
    mantissa_bits: int, most: int, sum_M: Floats, sum_R: Floats, sum_V: Floats, bound: Floats, highest: Floats,
    top_class: Ints, top_slot: Ints, top_score: Reals,
) -> bool:  # fmt: skip
    """Ranks a row; True when more than ``most`` slots would have to be completed, besides the leaders."""
    depth, found, done = top_class.size, 0, 0
    leaders = np.empty(depth + min(depth, 8), np.int32)
    _leaders(bound, highest, leaders)
    for k in range(leaders.size):
        if leaders[k] >= 0:
            score = _score(warm, warm_x, hot_M, hot_R, leaders[k], sum_M, sum_R, sum_V, scale, per_omega, mantissa_bits)
            found = _put_class(cls[leaders[k]], leaders[k], score, found, top_class, top_slot, top_score)
            bound[leaders[k]] = NEVER
    least = _last(top_score, found)
    for b in range(highest.size):
        if highest[b] < least:
            continue
        for p in range(b * BLOCK, min(b * BLOCK + BLOCK, bound.size)):
            if bound[p] >= least and bound[p] > NEVER:
                done += 1
                if done > most:
                    return True
                score = _score(warm, warm_x, hot_M, hot_R, p, sum_M, sum_R, sum_V, scale, per_omega, mantissa_bits)
                found = _put_class(cls[p], p, score, found, top_class, top_slot, top_score)
                least = _last(top_score, found)
    for at in range(found, depth):
        top_class[at], top_slot[at], top_score[at] = -1, -1, -np.inf
    return False


@kernel()
def _last(top_score: Reals, found: int) -> float:
    """The score that a slot's bound must reach to matter; bounds are rounded to float32."""
    if found < top_score.size:
        return -np.inf
    return top_score[found - 1] - 4 * EPSILON * abs(top_score[found - 1])


@kernel()
def _leaders(bound: Floats, highest: Floats, out: Ints) -> None:
    """The slots of the highest bounds; -1 fills up."""
    found, least = 0, NEVER
    for b in range(highest.size):
        if highest[b] <= least:
            continue
        for p in range(b * BLOCK, min(b * BLOCK + BLOCK, bound.size)):
            if bound[p] <= least:
                continue
            at = min(found, out.size - 1)
            while at > 0 and bound[p] > bound[out[at - 1]]:
                out[at] = out[at - 1]
                at -= 1
            out[at] = p
            found = min(found + 1, out.size)
            if found == out.size:
                least = bound[out[found - 1]]
    out[found:] = -1


@kernel()
def _products(
    warm: Ints, warm_x: Floats, hot_M: Floats, hot_R: Floats, p: int, sum_M: Floats, sum_R: Floats
) -> tuple[Any, Any]:
    """M_p . x and R_p . x: the hot part added to the rare one, in the same order as `add_hot` adds."""
    tile, place = p // TILE, p % TILE
    M, R = sum_M[p], sum_M.dtype.type(0)
    for i in range(warm.size):
        M += warm_x[i] * hot_M[tile, warm[i], place]
    if sum_R.size > 0:
        R = sum_R[p]
        for i in range(warm.size):
            R += warm_x[i] * hot_R[tile, warm[i], place]
    return M, R


@kernel()
def _score(
    warm: Ints, warm_x: Floats, hot_M: Floats, hot_R: Floats, p: int, sum_M: Floats, sum_R: Floats, sum_V: Floats,
    scale: Floats, per_omega: float, mantissa_bits: int,
) -> float:  # fmt: skip
    if sum_V.size > 0:
        V, tile, place, nothing = sum_V[p], p // TILE, p % TILE, sum_V.dtype.type(0)
        for i in range(warm.size):
            r = hot_R[tile, warm[i], place] if sum_R.size > 0 else nothing
            V += warm_x[i] * half.rounded_entry(hot_M[tile, warm[i], place], r, scale[p], per_omega, mantissa_bits)
        return V
    M, R = _products(warm, warm_x, hot_M, hot_R, p, sum_M, sum_R)
    return scale[p] * M + scale.dtype.type(per_omega) * R if sum_R.size > 0 else scale[p] * M


@kernel()
def _put_class(c: int, p: int, score: float, found: int, top_class: Ints, top_slot: Ints, top_score: Reals) -> int:
    """Puts slot p's class into the list, once, with its best slot; how many there are then."""
    for at in range(found):
        if top_class[at] == c:
            if not before(score, p, top_score[at], top_slot[at]):
                return found
            for later in range(at, found - 1):
                top_class[later], top_slot[later] = top_class[later + 1], top_slot[later + 1]
                top_score[later] = top_score[later + 1]
            return insert_class(c, p, score, found - 1, top_class, top_slot, top_score)
    return insert_class(c, p, score, found, top_class, top_slot, top_score)


@kernel()
def _add_all_hot(
    ix: Ints, x: Reals, hot: Ints, hot_M: Floats, hot_R: Floats, scale: Floats, per_omega: float, mantissa_bits: int,
    sum_M: Floats, sum_R: Floats, sum_V: Floats,
) -> None:  # fmt: skip
    for low in range(0, sum_M.size, TILE):
        tile, high = low // TILE, min(low + TILE, sum_M.size)
        add_hot(ix, x, hot, hot_M[tile], sum_M[low:high])
        if sum_R.size > 0:
            add_hot(ix, x, hot, hot_R[tile], sum_R[low:high])
        if sum_V.size > 0:
            half.add_hot(
                ix, x, hot, hot_M, hot_R, tile, scale[low:high], per_omega, mantissa_bits, sum_V[low:high]
            )  # fmt: skip


@kernel()
def _rank_all(
    kind: NDArray[np.int8], cls: Ints, classes: int, scale: Floats, per_omega: float, sum_M: Floats, sum_R: Floats,
    sum_V: Floats, top_class: Ints, top_slot: Ints, top_score: Reals,
) -> None:  # fmt: skip
    """Ranks a row of which all products are known."""
    score, best = np.empty(scale.size, scale.dtype), np.full(classes, -1, np.int32)
    scores(sum_M, sum_R, sum_V, scale, per_omega, score)
    for p in range(score.size):
        if kind[p] == ACTIVE and (best[cls[p]] < 0 or score[p] > score[best[cls[p]]]):
            best[cls[p]] = p
    top_of(score, best, top_class, top_slot, top_score)


@kernel()
def _thieves(
    own: int, warm: Ints, warm_x: Floats, hot_M: Floats, hot_R: Floats, sum_M: Floats, sum_R: Floats, sum_V: Floats,
    near: Floats, push: Floats, step_M: Floats, step_R: Floats, reach: float, slack: float, scale: Floats,
    per_omega: float, mantissa_bits: int,
    kind: NDArray[np.int8], next_slot: Ints, first_slot: Ints, trial: Ints, trials: Ints, top_class: Ints,
    top_score: Reals, steal_class: Ints, steal_score: Reals,
) -> int:  # fmt: skip
    """The trials of other classes that score above the best wrong class; how many there are, listed or not."""
    wrong, found = -np.inf, 0
    for h in range(top_class.size):
        if top_class[h] >= 0 and top_class[h] != own:
            wrong = top_score[h]
            break
    for k in range(trials.size):
        c = trials[k]
        if c == own:
            continue
        rough = reach > 0  # else the sums are complete
        if rough:
            value = bounds.upper_product(trial[c], sum_M, near, step_M, scale[trial[c]], reach, slack)
            if sum_R.size > 0:
                value += bounds.upper_correction(
                    first_slot[c], next_slot, kind, sum_R, push, step_R, per_omega, reach, slack
                )
            if value <= wrong:
                continue
        best, best_score, correction = -1, -np.inf, 0.0
        p = first_slot[c]
        while p >= 0:
            if kind[p] == ACTIVE:
                score = _score(warm, warm_x, hot_M, hot_R, p, sum_M, sum_R, sum_V, scale, per_omega, mantissa_bits)
                if best < 0 or score > best_score:
                    best, best_score = p, score
                    correction = _products(warm, warm_x, hot_M, hot_R, p, sum_M, sum_R)[1]
            p = next_slot[p]
        if best >= 0:
            exact = float(scale[trial[c]] * _products(warm, warm_x, hot_M, hot_R, trial[c], sum_M, sum_R)[0])
            if sum_R.size > 0:
                exact += per_omega * correction
            if exact > wrong:
                if found < steal_class.size:
                    steal_class[found], steal_score[found] = c, exact
                found += 1
    return found

"""A group's changes to the index, feature by feature.

They come as operations (row t, slot p, m, r): M_p += m x_t, R_p += r mu x_t. Their single entries are sorted by
feature, so that each list is changed by one thread in one pass, and lists that lie side by side one after the other:
`plan` (sort, find the entries, see which lists must move) -> room in the pool -> `apply`. Sums are rounded as stored
after every addition, in the order of the operations: the result does not depend on the threads.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from prototide.core.compiling import kernel
from prototide.core.engines.index import TILE, Index
from prototide.core.engines.intrinsics import move_items
from prototide.core.engines.postings import pmi_of
from prototide.core.engines.sketch import Sketch, note
from prototide.core.engines.tables import ACTIVE, Ints, Longs, Reals, Rows

LANES = 16  # of parts, each every 16th: the first features are often the most frequent ones, which are other work
PARTS, PART_ITEMS = 64, 256  # of the features, that the threads share out; items of a part at least


class Operations(NamedTuple):
    """Changes of one group, sorted by slot: M_slot += m x_row, R_slot += r mu x_row."""

    row: Ints
    slot: Ints
    m: Reals
    r: Reals


class Items(NamedTuple):
    """The operations' single entries, by feature; inside a feature slots ascend."""

    feature: Ints  # (touched,) features
    first: Longs  # (touched + 1,) into the two below
    operation: Ints
    x: Reals
    rate: Reals  # mu, empty without corrections
    part: Longs  # (parts + 1,) into `feature`


class Plan(NamedTuple):
    """How the touched features' lists must change before the items can be applied."""

    missing: Ints  # (touched,) entries that its list lacks; 0 for hot features
    moved: Longs  # (touched,) new place of a list that has no room, else -1
    offset: Ints  # (items,) where in its feature's list the item's slot is; -1 - where it would be


class Information(NamedTuple):
    """What an entry's mutual information is computed from, beside the entry; weight 0: leave it as it is."""

    kind: NDArray[np.int8]  # (slots,)
    mass: Reals  # (slots,)
    total: Reals  # (features,)
    scalars: Reals
    weight: float


@kernel()
def plan(
    index: Index, rows: Rows, rate: Reals, operations: Operations, count: Ints, pool_end: int
) -> tuple[Items, Plan, int]:
    """The items of operations, what the lists need for them, and the pool's end then.

    ``rate``: (non-zeros,) mu of each, empty without corrections. ``count``: (features,) zeros.
    """
    items = _grouped(rows, rate, operations, count)
    missing, moved = np.zeros(items.feature.size, np.int32), np.full(items.feature.size, -1, np.int64)
    offset = np.empty(items.x.size, np.int32)
    _find(index.start, index.length, index.hot, index.slot, items, operations.slot, missing, offset)
    for k in range(missing.size):
        j = items.feature[k]
        if missing[k] > 0 and index.length[j] + missing[k] > index.room[j]:
            moved[k] = pool_end
            pool_end += _room_for(index.length[j] + missing[k])
    return items, Plan(missing, moved, offset), pool_end


@kernel()
def _grouped(rows: Rows, rate: Reals, operations: Operations, count: Ints) -> Items:
    """``count`` is zeros again afterwards."""
    total = 0
    for t in operations.row:
        total += rows.indptr[t + 1] - rows.indptr[t]
    touched, found = np.empty(min(total, count.size), np.int32), 0
    for t in operations.row:
        for i in range(rows.indptr[t], rows.indptr[t + 1]):
            j = rows.indices[i]
            if count[j] == 0:
                touched[found] = j
                found += 1
            count[j] += 1
    touched = touched[:found].copy() if 8 * found < count.size else np.flatnonzero(count).astype(np.int32)
    first, place = np.zeros(found + 1, np.int64), np.empty(found, np.int64)
    for k in range(found):
        place[k] = first[k]
        first[k + 1] = first[k] + count[touched[k]]
        count[touched[k]] = k  # from here on: which touched feature it is
    operation, x = np.empty(total, np.int32), np.empty(total)
    of_x = np.empty(total if rate.size else 0)
    for o in range(operations.row.size):
        t = operations.row[o]
        for i in range(rows.indptr[t], rows.indptr[t + 1]):
            k = count[rows.indices[i]]
            operation[place[k]], x[place[k]] = o, rows.x[i]
            if rate.size:
                of_x[place[k]] = rate[i]
            place[k] += 1
    for j in touched:
        count[j] = 0
    return Items(touched, first, operation, x, of_x, parts_of(first, min(PARTS, 1 + total // PART_ITEMS)))


@kernel()
def parts_of(first: Longs, parts: int) -> Longs:
    """(parts + 1,) where to cut a list into parts of about equal work; first[k]: the work before its k-th."""
    part = np.searchsorted(first, np.arange(parts + 1) * first[-1] // parts)
    part[parts] = first.size - 1
    return part


@kernel()
def _room_for(length: int) -> int:
    return length + length // 4 + 1


@kernel(parallel=True)
def _find(
    start: Longs, length: Ints, hot: Ints, slot: Ints, items: Items, asked: Ints, missing: Ints, offset: Ints
) -> None:
    """Fills ``missing`` and ``offset``. ``asked``: (operations,) slots."""
    for lane in prange(LANES):
        for s in range(lane, items.part.size - 1, LANES):
            _find_part(
                start, length, hot, slot, items.feature, items.first, items.operation, asked, missing, offset,
                items.part[s], items.part[s + 1],
            )  # fmt: skip


@kernel()  # without slices: each would count a reference, over which the threads meet
def _find_part(
    start: Longs, length: Ints, hot: Ints, slot: Ints, feature: Ints, first: Longs, operation: Ints, asked: Ints,
    missing: Ints, offset: Ints, begin: int, end: int,
) -> None:  # fmt: skip
    """Offsets of the operations' slots, ascending, in the lists of some features; how many are not there."""
    for k in range(begin, end):
        j = feature[k]
        if hot[j] >= 0:
            continue
        at, last, before, there, absent = start[j], start[j] + length[j], -1, False, 0
        for i in range(first[k], first[k + 1]):
            p = asked[operation[i]]
            if p != before:
                before = p
                left = last - at
                while left > 0:  # a step that is chosen without a branch: nothing can be predicted here
                    half = left >> 1
                    below = slot[at + half] < p
                    at = at + half + 1 if below else at
                    left = left - half - 1 if below else half
                there = at < last and slot[at] == p
                absent += not there
            offset[i] = at - start[j] if there else -1 - (at - start[j])
        missing[k] = absent


@kernel(parallel=True)
def apply(
    index: Index, items: Items, operations: Operations, plan: Plan, information: Information, sketch: Sketch,
    gain: Reals,
) -> None:  # fmt: skip
    """Makes the entries that are missing and applies all items, then renews the mutual information of what attracted.

    ``gain``: (items,) gets what each item adds to |M|^2 of its slot; empty: nobody asks.
    """
    for lane in prange(LANES):
        for s in range(lane, items.part.size - 1, LANES):
            # numba drops writes to a tuple's arrays inside a parallel loop: hence the call
            _apply_part(index, items, operations, plan, information, sketch, gain, s)


@kernel()
def _apply_part(
    index: Index, items: Items, operations: Operations, plan: Plan, information: Information, sketch: Sketch,
    gain: Reals, s: int,
) -> None:  # fmt: skip
    for k in range(items.part[s], items.part[s + 1]):
        if plan.missing[k] > 0:
            j = items.feature[k]
            start, length, moved = index.start[j], index.length[j], plan.moved[k]
            here = items.operation[items.first[k] : items.first[k + 1]]
            _make_entries(
                index.slot, index.M, index.R, index.pmi, start, length, start if moved < 0 else moved, operations.slot,
                here, plan.offset[items.first[k] : items.first[k + 1]], plan.missing[k],
            )  # fmt: skip
            index.length[j] = length + plan.missing[k]
            if moved >= 0:
                index.start[j], index.room[j] = moved, _room_for(index.length[j])
    _apply_listed(index, items, operations, plan, information, gain, s)
    _apply_hot(index, items, operations, information, sketch, gain, s)


@kernel()  # loops over features, too: to hand over so many arrays takes as long as to change dozens of entries
def _apply_listed(
    index: Index, items: Items, operations: Operations, plan: Plan, information: Information, gain: Reals, s: int
) -> None:
    corrected, informed = index.R.size > 0, information.weight > 0
    for k in range(items.part[s], items.part[s + 1]):
        j, made = items.feature[k], 0
        i, end = items.first[k], items.first[k + 1] if index.hot[j] < 0 else items.first[k]
        while i < end:
            p, offset = operations.slot[items.operation[i]], plan.offset[i]
            at = index.start[j] + made + (offset if offset >= 0 else -1 - offset)
            made += offset < 0
            attracted = False
            while i < end and operations.slot[items.operation[i]] == p:
                o, x = items.operation[i], items.x[i]
                step, old = operations.m[o] * x, index.M[at]
                index.M[at] = old + step
                if gain.size > 0:
                    gain[i] = step * (2 * old + step)
                attracted |= operations.m[o] != 0
                if corrected and operations.r[o] != 0:
                    index.R[at] += operations.r[o] * items.rate[i] * x
                i += 1
            if attracted and informed and information.kind[p] == ACTIVE and information.mass[p] > 0:
                before = index.pmi[at]
                index.pmi[at] = pmi_of(
                    index.M[at], information.total[j], information.mass[p], information.scalars, information.weight
                )
                index.R[at] += index.pmi[at] - before


@kernel()
def _apply_hot(
    index: Index, items: Items, operations: Operations, information: Information, sketch: Sketch, gain: Reals, s: int
) -> None:
    corrected, informed = index.R.size > 0, information.weight > 0
    for k in range(items.part[s], items.part[s + 1]):
        j = items.feature[k]
        h = index.hot[j]
        i, end = items.first[k], items.first[k + 1] if h >= 0 else items.first[k]
        while i < end:
            p = operations.slot[items.operation[i]]
            tile, q = p // TILE, p % TILE
            attracted = pushed = False
            while i < end and operations.slot[items.operation[i]] == p:
                o, x = items.operation[i], items.x[i]
                step, old = operations.m[o] * x, index.hot_M[tile, h, q]
                index.hot_M[tile, h, q] = old + step
                if gain.size > 0:
                    gain[i] = step * (2 * old + step)
                attracted |= operations.m[o] != 0
                if corrected and operations.r[o] != 0:
                    index.hot_R[tile, h, q] += operations.r[o] * items.rate[i] * x
                    pushed = True
                i += 1
            if attracted and informed and information.kind[p] == ACTIVE and information.mass[p] > 0:
                before = index.hot_pmi[tile, h, q]
                index.hot_pmi[tile, h, q] = pmi_of(
                    index.hot_M[tile, h, q], information.total[j], information.mass[p], information.scalars,
                    information.weight,
                )  # fmt: skip
                index.hot_R[tile, h, q] += index.hot_pmi[tile, h, q] - before
                pushed = True
            if attracted:
                note(sketch.M, sketch.step_M, sketch.stale, h, p, index.hot_M[tile, h, q])
            if pushed:
                note(sketch.R, sketch.step_R, sketch.stale, h, p, index.hot_R[tile, h, q])


@kernel()
def _make_entries(
    slot: Ints, M: NDArray[Any], R: NDArray[Any], pmi: NDArray[Any], start: int, length: int, new: int, asked: Ints,
    operation: Ints, offset: Ints, missing: int,
) -> None:  # fmt: skip
    """Zero entries in the list at ``start``, ``missing`` many, from the back so that it works in place.

    ``new``: where the list begins afterwards. ``operation``, ``offset``: of one feature's items.
    """
    until, left, before = length, missing, -1
    for i in range(operation.size - 1, -1, -1):
        p = asked[operation[i]]
        if offset[i] >= 0 or p == before:
            continue
        before, first = p, -1 - offset[i]
        _move(slot, M, R, pmi, start + first, new + first + left, until - first)
        left -= 1
        until, at = first, new + first + left
        slot[at], M[at] = p, 0
        if R.size > 0:
            R[at] = 0
        if pmi.size > 0:
            pmi[at] = 0
    if new != start:
        _move(slot, M, R, pmi, start, new, until)


@kernel()
def _move(
    slot: Ints, M: NDArray[Any], R: NDArray[Any], pmi: NDArray[Any], source: int, target: int, count: int
) -> None:
    """Entries to where the pool has room, or further up over themselves."""
    move_items(slot, source, target, count)
    move_items(M, source, target, count)
    if R.size > 0:
        move_items(R, source, target, count)
    if pmi.size > 0:
        move_items(pmi, source, target, count)


@kernel()
def summed(items: Items, gain: Reals, operations: int) -> Reals:
    """(operations,) what each adds to |M|^2 of its slot."""
    each = np.zeros(operations)
    for i in range(gain.size):
        each[items.operation[i]] += gain[i]
    return each

"""The prototypes' entries, by feature: growing sorted posting lists in one pool.

    feature j:  (slot, M, R, pmi) for every prototype that has an entry there, slots ascending
    slot p:     the features in which it has an entry, in the order in which they came

A row touches the lists of its own features and nothing else: nothing passes over prototypes x features. A list that
is full moves to the end of the pool with half as much room again; ``compacted`` takes the holes out. The order inside a
list is fixed by the slots, so the model's content decides every sum, never its history.

The tuples are immutable: what may replace a pool returns a new tuple (the pools inside are written in place).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from prototide.core.compiling import kernel
from prototide.core.engines.tables import OMEGA, ROWS, Floats, Ints, Longs, Pool, Reals


class Postings(NamedTuple):
    """Entries by feature; the last four at the same position."""

    start: Longs  # (features,) where the list begins in the pool
    length: Ints  # (features,) entries
    room: Ints  # (features,) entries that fit
    end: Longs  # (1,) first free position of the pool
    slot: Ints  # (pool,)
    M: Floats  # (pool,)
    R: Floats  # (pool,) with the mutual information in it
    pmi: Floats  # (pool,) how much of R is mutual information


class Holdings(NamedTuple):
    """Features by slot: where a prototype has entries, unsorted."""

    start: Longs  # (slots,)
    length: Ints  # (slots,)
    room: Ints  # (slots,)
    end: Longs  # (1,)
    feature: Ints  # (pool,)


def empty_postings(dtype: type[np.floating[Any]]) -> Postings:
    """No feature, no entry."""
    none, pool = np.zeros(0, np.int32), 1024
    return Postings(
        np.zeros(0, np.int64), none, none.copy(), np.zeros(1, np.int64),
        np.empty(pool, np.int32), np.empty(pool, dtype), np.empty(pool, dtype), np.empty(pool, dtype),
    )  # fmt: skip


def empty_holdings() -> Holdings:
    """No slot, no entry."""
    none = np.zeros(0, np.int32)
    return Holdings(np.zeros(0, np.int64), none, none.copy(), np.zeros(1, np.int64), np.empty(1024, np.int32))


@kernel()
def find(postings: Postings, j: int, p: int) -> int:
    """Position of the entry (feature j, slot p) in the pool, or -1 - the position where it would be inserted."""
    low = postings.start[j]
    high = low + postings.length[j]
    while low < high:
        middle = (low + high) // 2
        if postings.slot[middle] < p:
            low = middle + 1
        else:
            high = middle
    if low < postings.start[j] + postings.length[j] and postings.slot[low] == p:
        return low
    return -1 - low


@kernel()
def _grown(pool: Pool, size: int) -> Pool:
    bigger = np.empty(max(size, pool.size + pool.size // 2), pool.dtype)
    bigger[: pool.size] = pool
    return bigger


@kernel()
def _copy(postings: Postings, source: int, target: int) -> None:
    """Entry to entry."""
    postings.slot[target], postings.M[target] = postings.slot[source], postings.M[source]
    postings.R[target], postings.pmi[target] = postings.R[source], postings.pmi[source]


@kernel()
def insert(postings: Postings, holdings: Holdings, j: int, p: int, at: int) -> tuple[Postings, Holdings, int]:
    """A zero entry (feature j, slot p) at position ``at`` of feature j's list: (postings, holdings, its position)."""
    start, length = postings.start[j], postings.length[j]
    if length == postings.room[j]:
        room = length + length // 2 + 2
        new = postings.end[0]
        if new + room > postings.slot.size:
            postings = Postings(
                postings.start, postings.length, postings.room, postings.end, _grown(postings.slot, new + room),
                _grown(postings.M, new + room), _grown(postings.R, new + room), _grown(postings.pmi, new + room),
            )  # fmt: skip
        for i in range(length):
            _copy(postings, start + i, new + i)
        postings.start[j], postings.room[j], postings.end[0] = new, room, new + room
        at += new - start
        start = new
    for i in range(start + length, at, -1):
        _copy(postings, i - 1, i)
    postings.slot[at], postings.M[at], postings.R[at], postings.pmi[at] = p, 0, 0, 0
    postings.length[j] = length + 1

    held = holdings.length[p]
    if held == holdings.room[p]:
        room = held + held // 2 + 8
        new = holdings.end[0]
        if new + room > holdings.feature.size:
            holdings = Holdings(
                holdings.start, holdings.length, holdings.room, holdings.end, _grown(holdings.feature, new + room)
            )
        for i in range(held):
            holdings.feature[new + i] = holdings.feature[holdings.start[p] + i]
        holdings.start[p], holdings.room[p], holdings.end[0] = new, room, new + room
    holdings.feature[holdings.start[p] + held] = j
    holdings.length[p] = held + 1
    return postings, holdings, at


@kernel()
def remove(postings: Postings, j: int, p: int) -> None:
    """Takes the entry (feature j, slot p) out of feature j's list, if it is there."""
    at = find(postings, j, p)
    if at >= 0:
        last = postings.start[j] + postings.length[j] - 1
        for i in range(at, last):
            _copy(postings, i + 1, i)
        postings.length[j] -= 1


@kernel()
def clear(postings: Postings, holdings: Holdings, p: int) -> None:
    """Takes out every entry of slot p."""
    start = holdings.start[p]
    for i in range(start, start + holdings.length[p]):
        remove(postings, holdings.feature[i], p)
    holdings.length[p] = 0


@kernel()
def add_to_centre(
    postings: Postings, holdings: Holdings, ix: Ints, x: Reals, weight: float, p: int
) -> tuple[Postings, Holdings, float]:
    """M_p += weight * x: (postings, holdings, change of |M_p|^2, exact up to rounding, in O(non-zeros))."""
    change = 0.0
    for i in range(ix.size):
        at = find(postings, ix[i], p)
        if at < 0:
            postings, holdings, at = insert(postings, holdings, ix[i], p, -1 - at)
        step, old = weight * x[i], postings.M[at]
        postings.M[at] = old + step
        change += step * (2 * old + step)
    return postings, holdings, change


@kernel()
def add_to_correction(
    postings: Postings, holdings: Holdings, ix: Ints, x: Reals, rate: Reals, weight: float, p: int
) -> tuple[Postings, Holdings]:
    """R_p += weight * rate * x, feature by feature."""
    for i in range(ix.size):
        at = find(postings, ix[i], p)
        if at < 0:
            postings, holdings, at = insert(postings, holdings, ix[i], p, -1 - at)
        postings.R[at] += weight * rate[i] * x[i]
    return postings, holdings


@kernel()
def pmi_of(M: float, total: float, mass: float, scalars: Reals, weight: float) -> float:
    """How much more of a feature a prototype has than its share of the rows would have, times omega * weight.

    sign(M) log(1 + |M| / (total * mass / N + omega))      total, N: of all rows; mass: rows of the prototype
    """
    omega = scalars[OMEGA]
    return omega * weight * np.sign(M) * np.log1p(abs(M) / (total * mass / scalars[ROWS] + omega))


@kernel()
def products(postings: Postings, ix: Ints, x: Reals, p: int) -> tuple[float, float]:
    """(M_p . x, R_p . x) of one prototype."""
    centre = correction = 0.0
    for i in range(ix.size):
        at = find(postings, ix[i], p)
        if at >= 0:
            centre += x[i] * postings.M[at]
            correction += x[i] * postings.R[at]
    return centre, correction


@kernel()
def gather(postings: Postings, holdings: Holdings, p: int) -> tuple[Ints, Floats, Floats, Floats]:
    """(features ascending, M, R, pmi) of one prototype, copies."""
    start = holdings.start[p]
    features = np.sort(holdings.feature[start : start + holdings.length[p]])
    M, R = np.empty(features.size, postings.M.dtype), np.empty(features.size, postings.R.dtype)
    pmi = np.empty(features.size, postings.pmi.dtype)
    for i in range(features.size):
        at = find(postings, features[i], p)
        M[i], R[i], pmi[i] = postings.M[at], postings.R[at], postings.pmi[at]
    return features, M, R, pmi


@kernel()
def packed_room(length: Ints) -> Ints:
    """Entries that fit in lists of some lengths when they have been packed: a quarter more."""
    return length + length // 4 + (length > 0)


@kernel()
def _packed(start: Longs, length: Ints, pool: Pool) -> tuple[Longs, int, Pool]:
    """Where each list begins when they lie one after the other with a little room, the end, and the moved pool."""
    new = np.empty_like(start)
    room, end = packed_room(length), 0
    for j in range(start.size):
        new[j] = end
        end += room[j]
    moved = np.empty(max(1024, end), pool.dtype)
    for j in range(start.size):
        for i in range(length[j]):
            moved[new[j] + i] = pool[start[j] + i]
    return new, end, moved


@kernel()
def compacted(postings: Postings, holdings: Holdings) -> tuple[Postings, Holdings]:
    """The same lists without holes, each with a quarter of room to grow."""
    start, end, slot = _packed(postings.start, postings.length, postings.slot)
    M = _packed(postings.start, postings.length, postings.M)[2]
    R = _packed(postings.start, postings.length, postings.R)[2]
    pmi = _packed(postings.start, postings.length, postings.pmi)[2]
    by_feature = Postings(start, postings.length, _rooms(start, end), np.array([end], np.int64), slot, M, R, pmi)
    start, end, feature = _packed(holdings.start, holdings.length, holdings.feature)
    return by_feature, Holdings(start, holdings.length, _rooms(start, end), np.array([end], np.int64), feature)


@kernel()
def _rooms(start: Longs, end: int) -> Ints:
    room = np.empty(start.size, np.int32)
    for j in range(start.size):
        room[j] = (start[j + 1] if j + 1 < start.size else end) - start[j]
    return room


def widened(postings: Postings, features: int) -> Postings:
    """The same with room for ``features`` features."""
    more = features - postings.start.size
    if more <= 0:
        return postings
    start, length, room = (np.concatenate([a, np.zeros(more, a.dtype)]) for a in postings[:3])
    return postings._replace(start=start, length=length, room=room)


def with_slots(holdings: Holdings, slots: int) -> Holdings:
    """The same with room for ``slots`` slots."""
    more = slots - holdings.start.size
    if more <= 0:
        return holdings
    start, length, room = (np.concatenate([a, np.zeros(more, a.dtype)]) for a in holdings[:3])
    return holdings._replace(start=start, length=length, room=room)


def holdings_of(slot: Ints, feature: Ints, slots: int) -> Holdings:
    """From all entries, in any order: the features of each slot."""
    order = np.argsort(slot, kind="stable")
    length = np.bincount(slot, minlength=slots).astype(np.int32)
    start = np.cumsum(length, dtype=np.int64) - length
    return Holdings(start, length, length.copy(), np.array([slot.size]), feature[order])

"""A group of rows, laid out for learning: rows by class, and for each class its own prototypes on its rows' features.

Inside a group a class depends on its own rows only. They touch no other features than their own, so that a small dense
table per class, (features of its rows, its slots), is all that learning reads and writes; it is taken from the entries
before and put back after. Classes, rows and pairs (class, feature) are numbered inside the group.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prototide.core.compiling import kernel
from prototide.core.engines.gpu.entries import SLOT_BITS, SLOT_MASK, Entries, keys_of
from prototide.core.engines.gpu.plan import Plan
from prototide.core.engines.gpu.rows import DeviceRows, to_host, together
from prototide.core.engines.gpu.scoring import Frozen, best_wrong
from prototide.core.engines.gpu.sums import ranges, wide_type
from prototide.core.engines.tables import ACTIVE, Classes, Ints, Longs, Reals, Slots

NONE, NEW_CLASS, TRIAL_BORN, PROMOTED, DISCARDED = 0, 1, 2, 3, 4  # what a row can make happen to a slot of its class

COLUMNS = range(8)  # of `Tables.counts`


@dataclass
class Tables:
    """Numbers of the group's classes and their slots, on the device; learning changes them."""

    kind: Tensor  # (classes, slots) int32
    mass: Tensor  # (classes, slots)
    square: Tensor
    counts: Tensor  # (classes, 8) int64: the columns below

    ACTIVE, TRIAL, ERRORS, WAIT, SAVED, STOLEN, AGE, LIMIT = COLUMNS


@dataclass
class Group:
    """All that the classes need to learn their rows; on the device."""

    first: Tensor  # (classes,) int64
    count: Tensor
    row: Tensor  # (rows,) row of the batch, by class
    indptr: Tensor  # (rows + 1,) into the three below
    pair: Tensor  # (non-zeros,) int64: pair (class, feature)
    x: Tensor  # (non-zeros,)
    rate: Tensor  # (non-zeros,) 1 / sqrt(1 + G / omega)
    feature: Tensor  # (non-zeros,)
    key: Tensor  # (pairs,) class << 32 | feature, ascending; the last fills up to the non-zeros, see `at`
    pair_first: Tensor  # (classes + 1,) where a class's pairs begin
    at: Tensor  # (pairs, slots) positions of the entries, -1 for none; -1 and zeros in M and R for what fills up
    M: Tensor  # (pairs, slots)
    R: Tensor
    M_before: Tensor
    tables: Tables
    slot: Tensor  # (classes, slots) as `Plan.slot`
    active: Tensor  # (classes, slots) flags: active at the start
    weight: Tensor  # (rows,)
    wrong: Tensor = field(init=False)  # (rows,) score of the best wrong class, -inf for none
    rival_class: Tensor = field(init=False)  # (rows, wrong_classes + 1) int32, frozen ranking, without the own class
    rival_slot: Tensor = field(init=False)  # (rows, wrong_classes + 1) int32
    rival_score: Tensor = field(init=False)

    def face(self, frozen: Frozen, own: Tensor, rivals: int) -> None:
        """Learns its rivals from the scores. ``own``: (n,) classes of all rows."""
        mine, top_class, top_score = own[self.row], frozen.top_class[self.row], frozen.top_score[self.row]
        self.wrong = best_wrong(top_class, top_score, mine)
        self.rival_class = torch.where(top_class == mine[:, None], -1, top_class)[:, :rivals].contiguous()
        self.rival_slot, self.rival_score = frozen.top_slot[self.row, :rivals], top_score[:, :rivals].contiguous()

    @property
    def pair_class(self) -> Tensor:
        """(pairs,)"""
        return self.key >> SLOT_BITS

    @property
    def pair_feature(self) -> Tensor:
        """(pairs,)"""
        return self.key & SLOT_MASK


@dataclass
class Changes:
    """What a group changed, entry by entry of its tables: (pairs x slots,)."""

    key: Tensor  # of the entry, for slots that were there at the start
    by: Tensor  # how M changed, 0 for slots that were not active all the while
    new: Tensor  # flags: to be put in


@dataclass
class Outcome:
    """What learning found for each row (by class), besides the tables and M, R of the group."""

    event: Tensor  # (rows,) int32
    event_slot: Tensor  # (rows,) which of the class's slots
    own: Tensor  # (rows,) best own slot before the row was learned, -1 for none
    own_score: Tensor  # (rows,)
    loss: Tensor  # (rows,) hinge loss, -1 for none
    right: Tensor  # (rows,) int32: it beat the best wrong class
    step: Tensor  # (rows, wrong_classes + 1) how strongly each rival is pushed
    born: Tensor  # (classes, slots) int32: born in this group
    source: Tensor  # (classes, slots) slot whose corrections a promoted trial took, -1 for none


def new_outcome(group: Group) -> Outcome:
    """Nothing found yet."""
    rows, shape = group.row.numel(), group.tables.kind.shape
    whole = group.tables.kind.new_zeros
    return Outcome(
        event=whole(rows), event_slot=whole(rows), own=whole(rows) - 1,
        own_score=group.weight.new_zeros(rows), loss=group.weight.new_full((rows,), -1.0), right=whole(rows),
        step=group.weight.new_zeros(group.rival_score.shape), born=whole(shape), source=whole(shape) - 1,
    )  # fmt: skip


def tables_of(plan: Plan, slots: Slots, classes: Classes) -> Reals:
    """(classes, 3 slots + 8) the numbers of the plan's slots and classes, as `Tables` divides them."""
    numbers = np.zeros((plan.classes.size, 3 * plan.slot.shape[1] + len(COLUMNS)))
    _gather(numbers, plan.slot, plan.classes, slots.kind, slots.mass, slots.square, *_columns(classes))
    return numbers


def take_tables(tables: Tables, place: Longs, plan: Plan, slots: Slots, classes: Classes) -> None:
    """Puts what learning left in the group's tables back; ``place``: (classes, slots) where each slot lies now."""
    numbers = to_host(torch.cat([tables.mass, tables.square, tables.counts.to(tables.mass.dtype)], 1))
    _scatter(numbers.astype(np.float64, copy=False), place, plan.classes, slots.mass, slots.square, *_columns(classes))


def _columns(classes: Classes) -> tuple[NDArray[Any], ...]:
    """As `Tables` numbers them."""
    c = classes
    return c.active, c.trial, c.errors, c.wait, c.saved, c.stolen, c.age, c.limit


@kernel()
def _gather(
    numbers: Reals, slot: Longs, classes: Longs, kind: NDArray[Any], mass: Reals, square: Reals, active: Ints,
    trial: Ints, errors: Longs, wait: Longs, saved: Longs, stolen: Longs, age: Longs, limit: Longs,
) -> None:  # fmt: skip
    width = slot.shape[1]
    for k in range(classes.size):
        c, row, its = classes[k], numbers[k], -1
        for s in range(width):
            p = slot[k, s]
            if p >= 0:
                row[s], row[width + s], row[2 * width + s] = kind[p], mass[p], square[p]
                its = s if p == trial[c] else its
        at = 3 * width
        row[at], row[at + 1], row[at + 2], row[at + 3] = active[c], its, errors[c], wait[c]
        row[at + 4], row[at + 5], row[at + 6], row[at + 7] = saved[c], stolen[c], age[c], limit[c]


@kernel()
def _scatter(
    numbers: Reals, place: Longs, classes: Longs, mass: Reals, square: Reals, active: Ints, trial: Ints, errors: Longs,
    wait: Longs, saved: Longs, stolen: Longs, age: Longs, limit: Longs,
) -> None:  # fmt: skip
    width = place.shape[1]
    for k in range(classes.size):
        c, row = classes[k], numbers[k]
        for s in range(width):
            if place[k, s] >= 0:
                mass[place[k, s]], square[place[k, s]] = row[s], row[width + s]
        at = 2 * width
        its = int(row[at + 1])
        active[c], trial[c] = row[at], place[k, its] if its >= 0 else -1
        errors[c], wait[c], saved[c], stolen[c], age[c] = (
            row[at + 2],
            row[at + 3],
            row[at + 4],
            row[at + 5],
            row[at + 6],
        )


def spread_rows(
    rows: DeviceRows, x: Tensor, rates: Tensor, row: Tensor, owner: Tensor, indptr: Tensor, nonzeros: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Key (class, feature), feature, value and rate of every non-zero of the rows ``row`` of the classes ``owner``."""
    which, at = ranges(rows.indptr[row], torch.diff(indptr), nonzeros)
    feature = rows.indices[at].long()
    return keys_of(owner[which], feature), feature, x[at], rates[feature]


def lay_out(
    plan: Plan, rows: DeviceRows, x: Tensor, weight: Reals, numbers: Reals, entries: Entries, rates: Tensor,
    spread: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]],
) -> Group:  # fmt: skip
    """A group without its rivals.

    ``x``: unit values of ``rows``; ``numbers``: see `tables_of`; ``rates``: (features,) of the corrections;
    ``spread``: `spread_rows`, or what does the same.
    """
    device, wide, width = x.device, wide_type(x.device), plan.slot.shape[1]
    ends = np.append(0, np.cumsum(rows.ends[plan.row + 1] - rows.ends[plan.row]))
    there = (plan.row, plan.owner, ends, plan.first, plan.count, plan.slot, weight[plan.row], numbers)
    row, owner, indptr, first, count, slot, weights, all_numbers = together(there, device)
    kind, mass, square, counts = torch.split(all_numbers, [width, width, width, len(COLUMNS)], 1)
    tables = Tables(kind.int(), mass.to(wide).contiguous(), square.to(wide).contiguous(), counts.long())
    keys, feature, values, rate = spread(rows, x, rates, row, owner, indptr, int(ends[-1]))
    key, pair, number = _numbered(keys)
    held = slot[key >> SLOT_BITS]
    real = torch.arange(key.numel(), device=device) < number
    position = entries.find(keys_of((key & SLOT_MASK)[:, None], held.clamp(min=0)))
    position = torch.where((held >= 0) & real[:, None], position, -1)
    M, R = (_at(table, position) for table in (entries.M, entries.R))
    edges = torch.arange(count.numel() + 1, device=device) << SLOT_BITS
    return Group(
        first=first, count=count, row=row, indptr=indptr, pair=pair, x=values, rate=rate, feature=feature, key=key,
        pair_first=torch.searchsorted(key, edges), at=position, M=M, R=R, M_before=M.clone(), tables=tables,
        slot=slot, active=tables.kind == ACTIVE, weight=weights.to(wide),
    )  # fmt: skip


def _numbered(keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The different keys, ascending, filled up with the last; the number of each key; (1,) how many there are.

    `torch.unique` would wait until the device knows.
    """
    ascending, order = torch.sort(keys)
    number = torch.nn.functional.pad(ascending[1:] != ascending[:-1], (1, 0)).cumsum(0)
    unique = ascending[-1:].repeat(keys.numel()).index_copy_(0, number, ascending)
    return unique, torch.empty_like(number).index_copy_(0, order, number), number[-1:] + 1


def _at(table: Tensor, position: Tensor) -> Tensor:
    """Values at the positions, 0 at -1."""
    if not table.numel():
        return torch.zeros(position.shape, dtype=table.dtype, device=table.device)
    return torch.where(position >= 0, table[position.clamp(min=0)], 0)

"""A group of rows, laid out for learning: rows by class, and for each class its own prototypes on its rows' features.

Inside a group a class depends on its own rows only. They touch no other features than their own, so that a small dense
table per class, (features of its rows, its slots), is all that learning reads and writes; it is taken from the entries
before and put back after. Classes, rows and pairs (class, feature) are numbered inside the group.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor

from prototide.core.engines.gpu.entries import SLOT_BITS, SLOT_MASK, Entries, keys_of
from prototide.core.engines.gpu.rows import DeviceRows, to_device
from prototide.core.engines.gpu.scoring import Frozen, best_wrong
from prototide.core.engines.gpu.sums import ranges, wide_type
from prototide.core.engines.tables import Classes, Ints, Longs, Reals, Rule, Slots

NONE, NEW_CLASS, TRIAL_BORN, PROMOTED, DISCARDED = 0, 1, 2, 3, 4  # what a row can make happen to a slot of its class


@dataclass(frozen=True)
class Plan:
    """Which rows and which slots take part; on the host."""

    row: Longs  # (rows,) learned rows, by class, in order inside a class
    classes: Longs  # (classes,)
    first: Longs  # (classes,) where a class's rows begin
    count: Longs  # (classes,)
    slot: Longs  # (classes, most slots of one class) ascending, -1 fills up with room for births

    @property
    def owner(self) -> Longs:
        """(rows,) the class of each row, by number in ``classes``."""
        return np.repeat(np.arange(self.classes.size), self.count)

    @classmethod
    def of(cls, own_class: NDArray[np.int32], slots: Slots, classes: Classes, rule: Rule) -> Plan:
        """For the rows whose ``own_class`` is not -1."""
        row, row_begin = by_class(own_class, classes.active.size)
        held, slot_begin = by_class(np.where(slots.kind > 0, slots.cls, np.int32(-1)), classes.active.size)
        present = np.flatnonzero(np.diff(row_begin))
        first, count = row_begin[present], np.diff(row_begin)[present]
        begin, here = slot_begin[present], np.diff(slot_begin)[present]
        births = 1 + count // rule.grow_after  # a trial asks for so many errors
        most = np.minimum(np.maximum(classes.limit[present], np.maximum(here, 1)), here + births)
        each = np.arange(int(most.max(initial=1)))
        slot = np.append(held, -1)[np.minimum(begin[:, None] + each, held.size)]
        return cls(row, present, first, count, np.where(each < here[:, None], slot, -1))


@njit(cache=True)
def by_class(cls: Ints, classes: int) -> tuple[Longs, Longs]:
    """(positions whose class is not -1, by class, ascending inside one; (classes + 1,) where each class begins)."""
    begin = np.zeros(classes + 1, np.int64)
    for c in cls:
        if c >= 0:
            begin[c + 1] += 1
    begin = np.cumsum(begin)
    order, at = np.empty(begin[-1], np.int64), begin.copy()
    for i in range(cls.size):
        if cls[i] >= 0:
            order[at[cls[i]]] = i
            at[cls[i]] += 1
    return order, begin


@dataclass
class Tables:
    """Numbers of the group's classes and their slots, on the device; learning changes them."""

    kind: Tensor  # (classes, slots) int32
    mass: Tensor  # (classes, slots)
    square: Tensor
    counts: Tensor  # (classes, 8) int64: the columns below

    ACTIVE, TRIAL, ERRORS, WAIT, SAVED, STOLEN, AGE, LIMIT = range(8)


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


def tables_of(plan: Plan, slots: Slots, classes: Classes, device: torch.device) -> Tables:
    """The numbers of the plan's classes and slots."""
    there, at = plan.slot >= 0, np.maximum(plan.slot, 0)
    kind, mass, square = (
        np.where(there, table[at], 0) if table.size else np.zeros(at.shape)
        for table in (slots.kind, slots.mass, slots.square)
    )
    c = plan.classes
    trial = classes.trial[c]
    local = np.where(trial >= 0, (plan.slot == trial[:, None]).argmax(1), -1)
    columns = (classes.active[c], local, classes.errors[c], classes.wait[c], classes.saved[c], classes.stolen[c],
               classes.age[c], classes.limit[c])  # fmt: skip
    wide, width = wide_type(device), plan.slot.shape[1]
    all_of_it = to_device(np.concatenate([kind, mass, square, np.stack(columns, 1)], 1), device, np.float64)
    kinds, masses, squares, counts = torch.split(all_of_it, [width, width, width, len(columns)], 1)
    return Tables(kinds.int(), masses.to(wide).contiguous(), squares.to(wide).contiguous(), counts.long())


def lay_out(
    plan: Plan, rows: DeviceRows, x: Tensor, weight: Reals, entries: Entries, tables: Tables, rates: Tensor
) -> Group:  # fmt: skip
    """A group without its rivals. ``x``: unit values of ``rows``; ``rates``: (features,) of the corrections."""
    device = x.device
    row, first, count, slot = (to_device(a, device) for a in (plan.row, plan.first, plan.count, plan.slot))
    length = torch.diff(rows.indptr)[row]
    which, at = ranges(rows.indptr[row], length, int((rows.ends[plan.row + 1] - rows.ends[plan.row]).sum()))
    feature = rows.indices[at].long()
    row_class = torch.repeat_interleave(torch.arange(count.numel(), device=device), count, output_size=row.numel())
    key, pair, number = _numbered(keys_of(row_class[which], feature))
    edges = torch.arange(count.numel() + 1, device=device) << SLOT_BITS
    held = slot[key >> SLOT_BITS]
    real = torch.arange(key.numel(), device=device) < number
    position = entries.find(keys_of((key & SLOT_MASK)[:, None], held.clamp(min=0)))
    position = torch.where((held >= 0) & real[:, None], position, -1)
    M, R = (_at(table, position) for table in (entries.M, entries.R))
    return Group(
        first=first, count=count, row=row, indptr=torch.nn.functional.pad(torch.cumsum(length, 0), (1, 0)),
        pair=pair, x=x[at], rate=rates[feature], feature=feature, key=key,
        pair_first=torch.searchsorted(key, edges), at=position, M=M, R=R, M_before=M.clone(), tables=tables,
        weight=to_device(weight[plan.row], device).to(tables.mass.dtype),
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

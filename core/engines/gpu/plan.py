"""Which rows and slots take part in a group, on the host: lists by class."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prototide.core.compiling import kernel
from prototide.core.engines.tables import Classes, Ints, Longs, Rule, Slots


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
        width = _widest(present, count, slot_begin, classes.limit, rule.grow_after)
        return cls(row, present, first, count, lists(held, slot_begin, present, width, -1))


@kernel()
def _widest(present: Longs, count: Longs, slot_begin: Longs, limit: Longs, grow_after: int) -> int:
    """Most slots that a class may need: those that it has, and a birth for every so many errors."""
    width = 1
    for k in range(present.size):
        c = present[k]
        here = slot_begin[c + 1] - slot_begin[c]
        width = max(width, min(max(limit[c], here, 1), here + 1 + count[k] // grow_after))
    return width


@kernel()
def lists(order: Longs, begin: Longs, chosen: Longs, width: int, fill: int) -> Longs:
    """(chosen, width) the lists order[begin[c]:begin[c + 1]] of the chosen c; ``fill`` fills up."""
    out = np.full((chosen.size, width), fill)
    for k in range(chosen.size):
        first = begin[chosen[k]]
        for i in range(min(width, begin[chosen[k] + 1] - first)):
            out[k, i] = order[first + i]
    return out


@kernel()
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

"""How far prototypes move: 1 - cosine between a centre before and after, from what it attracted, without a copy of it.

1 - cos(M, M + A) = (|A|^2 - (|M + A| - |M|)^2) / (2 |M| |M + A|)       A: what the prototype attracted
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prototide.core.compiling import kernel
from prototide.core.engines.tables import ACTIVE, Ints, Longs, Reals, Rows, Slots, Trace


@dataclass(frozen=True)
class Movement:
    """How far prototypes moved, newborn ones left out; one entry per prototype."""

    ids: Longs
    classes: Ints
    masses: Reals
    shifts: Reals


@dataclass
class Journey:
    """What the prototypes have attracted since a moment: groups of rows, and which prototypes took them."""

    rows: list[Rows] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)

    def add(self, rows: Rows, trace: Trace) -> None:
        """One group's rows and which prototypes attracted them."""
        self.rows.append(rows)
        self.traces.append(trace)

    def movement(self, slots: Slots, omega: float, n_features: int) -> Movement:
        """To here."""
        parts = [trace[1:5] if trace.end[0] == trace.row.size else _cut(trace) for trace in self.traces]
        if not any(part[0].size for part in parts):
            return Movement(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0), np.zeros(0))
        row, slot, weight, before = parts[0]
        if len(parts) > 1:
            begin = np.cumsum([0] + [rows.indptr.size - 1 for rows in self.rows])
            row = np.concatenate([part[0] + b for part, b in zip(parts, begin, strict=False)])
            slot, weight, before = (np.concatenate([part[i] for part in parts]) for i in (1, 2, 3))
        dense = np.zeros(n_features if row.size > 1 else 0)  # pages that are never touched cost nothing
        moved, shifts = _shifts(*_stacked(self.rows), row, slot, weight, before, slots.kind, slots.square, dense)
        return Movement(slots.id[moved], slots.cls[moved], slots.mass[moved] / omega, shifts)


def _cut(trace: Trace) -> tuple[Longs, Ints, Reals, Reals]:
    end = trace.end[0]
    return trace.row[:end], trace.slot[:end], trace.weight[:end], trace.before[:end]


def joined(parts: list[Movement]) -> Movement:
    """Movements one after the other: the shifts of a prototype add, its last mass counts."""
    if len(parts) == 1:
        return parts[0]
    ids = np.concatenate([part.ids for part in parts])
    unique, where = np.unique(ids, return_inverse=True)
    shifts = np.zeros(unique.size)
    np.add.at(shifts, where, np.concatenate([part.shifts for part in parts]))
    last = np.zeros(unique.size, np.int64)
    last[where] = np.arange(ids.size)  # later entries overwrite earlier ones
    classes = np.concatenate([part.classes for part in parts])[last]
    masses = np.concatenate([part.masses for part in parts])[last]
    return Movement(unique, classes, masses, shifts)


def _stacked(rows: list[Rows]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    if len(rows) == 1:
        return rows[0].indptr, rows[0].indices, rows[0].x
    lengths = np.concatenate([np.diff(part.indptr) for part in rows])
    indptr = np.append(0, np.cumsum(lengths))
    return indptr, np.concatenate([part.indices for part in rows]), np.concatenate([part.x for part in rows])


@kernel(error_model="numpy")
def _shifts(
    indptr: Longs, indices: Ints, x: Reals, row: Longs, slot: Ints, weight: Reals, before: Reals,
    kind: NDArray[np.int8], square: Reals, dense: Reals,
) -> tuple[Ints, Reals]:  # fmt: skip
    """(slots ascending, how far each moved) of prototypes that were active and are. ``dense``: (features,) zeros."""
    order = np.argsort(slot, kind="mergesort")
    moved, shifts, found, last = np.empty(slot.size, np.int32), np.empty(slot.size), 0, 0
    while last < slot.size:
        first, p = last, slot[order[last]]
        while last < slot.size and slot[order[last]] == p:
            last += 1
        if before[order[first]] < 0 or kind[p] != ACTIVE:
            continue
        attracted = 0.0  # |sum of weight * x|^2
        for k in range(first, last):
            a = order[k]
            for i in range(indptr[row[a]], indptr[row[a] + 1]):
                old, step = dense[indices[i]] if last - first > 1 else 0.0, weight[a] * x[i]
                attracted += step * (2 * old + step)
                if last - first > 1:
                    dense[indices[i]] = old + step
        if last - first > 1:
            for k in range(first, last):
                for i in range(indptr[row[order[k]]], indptr[row[order[k]] + 1]):
                    dense[indices[i]] = 0
        old, new = np.sqrt(before[order[first]]), np.sqrt(square[p])
        moved[found] = p
        shifts[found] = max(0.0, (attracted - (new - old) ** 2) / (2 * old * new))
        found += 1
    return moved[:found], shifts[:found]

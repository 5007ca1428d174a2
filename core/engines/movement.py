"""How far prototypes move: 1 - cosine between a centre before and after, from what it attracted, without a copy of it.

1 - cos(M, M + A) = (|A|^2 - (|M + A| - |M|)^2) / (2 |M| |M + A|)       A: what the prototype attracted
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

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
    """The prototypes as they were at the start, and what they attracted since."""

    ids: Longs  # (slots,) -1 where no active prototype was
    squares: Reals  # (slots,) |M|^2
    rows: list[Rows] = field(default_factory=list)
    traces: list[Trace] = field(default_factory=list)

    @classmethod
    def begin(cls, slots: Slots) -> Journey:
        """From here."""
        return cls(np.where(slots.kind == ACTIVE, slots.id, -1), slots.square.copy())

    def add(self, rows: Rows, trace: Trace) -> None:
        """One group's rows and which prototypes attracted them."""
        self.rows.append(rows)
        self.traces.append(trace)

    def movement(self, slots: Slots, omega: float, n_features: int) -> Movement:
        """To here."""
        counts = [int(trace.end[0]) for trace in self.traces]
        slot = np.concatenate(
            [trace.slot[:n] for trace, n in zip(self.traces, counts, strict=True)] or [np.zeros(0, np.int32)]
        )
        if not slot.size:
            return Movement(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0), np.zeros(0))
        before = np.cumsum([0] + [rows.indptr.size - 1 for rows in self.rows])
        row = np.concatenate([trace.row[:n] + b for trace, n, b in zip(self.traces, counts, before, strict=False)])
        weight = np.concatenate([trace.weight[:n] for trace, n in zip(self.traces, counts, strict=True)])
        order = np.argsort(slot, kind="stable")
        moved, first = np.unique(slot[order], return_index=True)
        indptr, indices, x = _stacked(self.rows)
        if indices.size < n_features // 8:  # few of many features: numbered anew
            columns, indices = np.unique(indices, return_inverse=True)
            n_features = columns.size
        squares = _attracted_squares(
            indptr, indices.astype(np.int32, copy=False), x, row[order], weight[order],
            np.append(first, slot.size), n_features,
        )  # fmt: skip
        known = moved < self.ids.size
        known[known] = self.ids[moved[known]] == slots.id[moved[known]]
        known &= slots.kind[moved] == ACTIVE
        moved, squares = moved[known], squares[known]
        old, new = np.sqrt(self.squares[moved]), np.sqrt(slots.square[moved])
        shift = np.maximum(0.0, (squares - (new - old) ** 2) / (2 * old * new))
        return Movement(slots.id[moved], slots.cls[moved], slots.mass[moved] / omega, shift)


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


@njit(cache=True)
def _attracted_squares(
    indptr: Longs, indices: Ints, x: Reals, row: Longs, weight: Reals, first: Longs, n_features: int
) -> Reals:
    """|sum of weight * x|^2 over the attractions first[k]..first[k + 1] of each prototype k."""
    dense, squares = np.zeros(n_features), np.zeros(first.size - 1)
    for k in range(first.size - 1):
        for a in range(first[k], first[k + 1]):
            for i in range(indptr[row[a]], indptr[row[a] + 1]):
                old, step = dense[indices[i]], weight[a] * x[i]
                dense[indices[i]] = old + step
                squares[k] += step * (2 * old + step)
        for a in range(first[k], first[k + 1]):
            for i in range(indptr[row[a]], indptr[row[a] + 1]):
                dense[indices[i]] = 0
    return squares

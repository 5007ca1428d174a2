"""Learning when every class has one prototype and nothing is learned from what other classes score: M += x, no more.

Nothing is scored and nothing decided; |M|^2 follows from what the entries were before the additions.
"""

from __future__ import annotations

import numpy as np

from prototide.core.compiling import kernel
from prototide.core.engines.changing import Operations
from prototide.core.engines.learning import occupy
from prototide.core.engines.tables import (
    ACTIVE,
    BORN,
    LOSS_ROWS,
    NEXT_ID,
    OMEGA,
    ROWS,
    Classes,
    Features,
    Ints,
    Longs,
    Reals,
    Rows,
    Rule,
    Slots,
)  # fmt: skip


@kernel()
def attract_rows(
    rows: Rows, own_class: Ints, weight: Reals, slots: Slots, rank: Ints, classes: Classes, features: Features,
    scalars: Reals, counters: Longs, rule: Rule,
) -> tuple[Operations, Reals]:  # fmt: skip
    """Every labelled row goes to its class's prototype, which the first row of a new class becomes.

    Returns the operations, and for each of them |M|^2 of its slot before the group, -1 for a newborn one.
    """
    omega, newest, lowest = scalars[OMEGA], counters[NEXT_ID], 0
    labelled = np.flatnonzero(own_class >= 0)
    slot, before, mass = np.empty(labelled.size, np.int32), np.empty(labelled.size), np.empty(labelled.size)
    for i in range(labelled.size):
        t = labelled[i]
        y = own_class[t]
        p = classes.first[y]
        if p < 0:
            p = occupy(slots, classes, counters, y, ACTIVE, lowest)
            lowest, rank[p] = p + 1, 0
            classes.active[y], classes.trial[y], classes.wait[y], classes.errors[y] = 1, -1, rule.grow_after, 0
            counters[BORN] += 1
        mass[i] = omega * weight[t]
        slots.mass[p] += mass[i]
        slot[i], before[i] = p, slots.square[p] if slots.id[p] < newest else -1.0
        scalars[LOSS_ROWS] += omega
        scalars[ROWS] += mass[i]
        if rule.idf:
            for j in rows.indices[rows.indptr[t] : rows.indptr[t + 1]]:
                features.document_frequency[j] += mass[i]
    by_slot = np.argsort(slot, kind="mergesort")
    row = labelled[by_slot].astype(np.int32)
    return Operations(row, slot[by_slot], mass[by_slot], np.zeros(row.size)), before[by_slot]


@kernel()
def lengthen(
    slot: Ints, gained: Reals, slots: Slots, rank: Ints, dots: Reals, dots_first: Longs, dots_size: Ints
) -> None:
    """|M|^2 of the slots of some operations, each of which added ``gained`` to it."""
    for o in range(slot.size):
        p = slot[o]
        c = slots.cls[p]
        slots.square[p] += gained[o]
        dots[dots_first[c] + rank[p] * (dots_size[c] + 1)] = slots.square[p]

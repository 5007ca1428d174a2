"""Births and deaths of slots: few, and in the order of the rows, so the host replays them."""

from __future__ import annotations

import heapq
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prototide.core.engines.gpu.group import DISCARDED, NEW_CLASS, PROMOTED
from prototide.core.engines.gpu.plan import Plan
from prototide.core.engines.tables import ACTIVE, BORN, FREE, NEXT_ID, STEP, TRIAL, Classes, Ints, Longs, Slots


@dataclass(frozen=True)
class Replayed:
    """What became of a group's slots."""

    place: Longs  # (classes, slots) where each of the classes' slots lies now, -1 for none
    vacated: list[int]  # slots whose entries before the group are void
    kept: NDArray[np.bool_]  # (classes,) whose trial is that of the group's start


def replay(plan: Plan, event: Ints, event_slot: Ints, slots: Slots, classes: Classes, counters: Longs) -> Replayed:
    """Does in the tables what the rows' events say; the lowest free slot goes to whom comes first."""
    place = plan.slot.copy()
    vacated: list[int] = []
    kept = classes.trial[plan.classes] >= 0
    happened = np.flatnonzero(event)
    if not happened.size:
        return Replayed(place, vacated, kept)
    owner = plan.owner
    free = [int(p) for p in np.flatnonzero(slots.kind == FREE)]  # ascending: a heap
    for r in happened[np.argsort(plan.row[happened], kind="stable")].tolist():
        k, local, what = int(owner[r]), int(event_slot[r]), int(event[r])
        c, p = int(plan.classes[k]), int(place[k, local])
        if what == PROMOTED:
            slots.kind[p], slots.birth[p] = ACTIVE, counters[STEP]
            counters[BORN] += 1
            kept[k] = False
        elif what == DISCARDED:
            vacate(slots, p)
            heapq.heappush(free, p)
            vacated.append(p)
            place[k, local], kept[k] = -1, False
        else:
            p = place[k, local] = heapq.heappop(free)
            occupy(slots, counters, p, c, ACTIVE if what == NEW_CLASS else TRIAL)
            counters[BORN] += what == NEW_CLASS
            kept[k] = False
    return Replayed(place, vacated, kept)


def occupy(slots: Slots, counters: Longs, p: int, c: int, kind: int) -> None:
    """Gives the free slot p to class c."""
    slots.kind[p], slots.cls[p] = kind, c
    slots.mass[p] = slots.square[p] = 0
    slots.id[p], slots.birth[p] = counters[NEXT_ID], counters[STEP]
    counters[NEXT_ID] += 1


def vacate(slots: Slots, p: int) -> None:
    """Frees slot p; its entries are the caller's."""
    slots.kind[p], slots.cls[p], slots.next[p] = FREE, 0, -1
    slots.mass[p] = slots.square[p] = 0
    slots.id[p], slots.birth[p] = -1, 0


def link(slots: Slots, classes: Classes) -> None:
    """Sets each class's first slot and each slot's next of its class, ascending."""
    classes.first[:], slots.next[:] = -1, -1
    held = np.flatnonzero(slots.kind)
    held = held[np.argsort(slots.cls[held], kind="stable")]
    same = slots.cls[held[1:]] == slots.cls[held[:-1]]
    slots.next[held[:-1][same]] = held[1:][same]
    begins = held[np.append(True, ~same)] if held.size else held
    classes.first[slots.cls[begins]] = begins

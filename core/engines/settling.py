"""What a group's rows change: classes decide, births get slots in row order, and the operations on the index."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from prototide.core.compiling import kernel
from prototide.core.engines.changing import Operations
from prototide.core.engines.deciding import DEAD, Decisions, correction_rates, decide, empty_decisions
from prototide.core.engines.learning import occupy
from prototide.core.engines.tables import (
    ACTIVE,
    BORN,
    FREE,
    LOSS_ROWS,
    MEAN_LOSS,
    OMEGA,
    ROWS,
    STEP,
    Classes,
    Features,
    Frozen,
    Ints,
    Longs,
    Reals,
    Rows,
    Rule,
    Slots,
)  # fmt: skip


class Settled(NamedTuple):
    """What a group's rows have changed in the tables, and what they are to change in the index."""

    operations: Operations
    rate: Reals  # (non-zeros,) of the corrections; empty without them
    present: Ints  # (classes present,)
    row: Longs  # of the attractions, as in `tables.Trace`
    slot: Ints
    weight: Reals
    before: Reals
    own_slot: Ints  # (n,)
    own_score: Reals  # (n,)
    heir: Ints  # (heirs,) promoted slots,
    source: Ints  # (heirs,) and the slots whose correction they take over
    end: int  # no slot from here on was taken


@kernel()
def settle_group(
    rows: Rows, own_class: Ints, weight: Reals, frozen: Frozen, own_M: Reals, own_R: Reals, slots: Slots, rank: Ints,
    begun: Reals, classes: Classes, features: Features, scalars: Reals, counters: Longs, rule: Rule, dots: Reals,
    dots_first: Longs, dots_size: Ints, most: int,
) -> Settled:  # fmt: skip
    """Learns a scored group but for the entries. ``most``: attractions of a row; ``begun``: (slots,) scratch."""
    order, first, present = _by_class(own_class)
    thief = np.empty(frozen.steal_class.size, np.int64)
    for i in range(thief.size):
        thief[i] = slots.id[classes.trial[frozen.steal_class[i]]]
    for c in present:
        p = classes.first[c]
        while p >= 0:
            begun[p] = slots.square[p] if slots.kind[p] == ACTIVE else -1.0
            p = slots.next[p]
    rate = np.empty(rows.x.size if rule.correction > 0 else 0)
    if rule.correction > 0:
        correction_rates(rows, features, scalars[OMEGA], rate)
    decided = empty_decisions(own_class.size, most, rule.wrong_classes)
    decide(
        rows, rate, weight, order, first, present, frozen, own_M, own_R, slots, rank, classes, scalars, rule, dots,
        dots_first, dots_size, decided,
    )  # fmt: skip
    born = settle(own_class, decided, slots, rank, classes, counters)
    for t in range(born.size):
        if born[t] >= 0:
            begun[born[t]] = -1
    heirs = np.full(own_class.size, -1, np.int32)
    operations = operations_of(decided, born, slots, order, first, heirs)
    finish_shared(rows, own_class, weight, decided, frozen, slots, classes, features, scalars, rule, thief)
    own_slot = np.empty(own_class.size, np.int32)
    for t in range(own_slot.size):
        own_slot[t] = _slot_of(decided.own_code[t], born)
    heir, source = _heirs(decided, born, slots, heirs)
    attracted = np.flatnonzero(operations.m != 0)
    slot = operations.slot[attracted]
    return Settled(
        operations, rate, present, operations.row[attracted].astype(np.int64), slot, operations.m[attracted],
        begun[slot], own_slot, decided.own_score, heir, source, born.max() + 1,
    )  # fmt: skip


@kernel()
def _by_class(own_class: Ints) -> tuple[Ints, Longs, Ints]:
    """(learned rows by class, where each class begins among them and the end, the classes)."""
    order = np.flatnonzero(own_class >= 0).astype(np.int32)
    order = order[np.argsort(own_class[order], kind="mergesort")]
    first, found = np.empty(order.size + 1, np.int64), 0
    for i in range(order.size):
        if i == 0 or own_class[order[i]] != own_class[order[i - 1]]:
            first[found] = i
            found += 1
    first[found] = order.size
    return order, first[: found + 1], own_class[order[first[:found]]]


@kernel()
def _heirs(decided: Decisions, born: Ints, slots: Slots, heirs: Ints) -> tuple[Ints, Ints]:
    heir, source, n = np.empty(heirs.size, np.int32), np.empty(heirs.size, np.int32), 0
    for t in range(heirs.size):
        if heirs[t] >= 0:
            p = _slot_of(decided.promoted[t], born)
            if slots.kind[p] != DEAD:
                heir[n], source[n] = p, heirs[t]
                n += 1
    return heir[:n], source[:n]


@kernel()
def bury(slots: Slots, classes: Classes, p: int) -> None:
    """Takes the prototype out of its class; the slot is free again when its entries have been dropped."""
    c = slots.cls[p]
    if classes.first[c] == p:
        classes.first[c] = slots.next[p]
    else:
        before = classes.first[c]
        while slots.next[before] != p:
            before = slots.next[before]
        slots.next[before] = slots.next[p]
    slots.kind[p], slots.next[p] = DEAD, -1


@kernel()
def settle(own_class: Ints, decided: Decisions, slots: Slots, rank: Ints, classes: Classes, counters: Longs) -> Ints:
    """Gives slots to what was born and buries what is gone, row by row; (n,) the slot of what each row bore, or -1."""
    born = np.full(own_class.size, -1, np.int32)
    lowest = 0  # no slot is freed here: a search begins where the last one ended
    for t in range(own_class.size):
        y = own_class[t]
        if decided.gone[t] != -1:
            bury(slots, classes, decided.gone[t] if decided.gone[t] >= 0 else born[-2 - decided.gone[t]])
            classes.trial[y] = -1
        if decided.promoted[t] != -1:
            p = decided.promoted[t] if decided.promoted[t] >= 0 else born[-2 - decided.promoted[t]]
            slots.birth[p] = counters[STEP]
            counters[BORN] += 1
            classes.trial[y] = -1
        if decided.born_kind[t] > 0:
            p = occupy(slots, classes, counters, y, decided.born_kind[t], lowest)
            lowest = p + 1
            born[t], rank[p] = p, decided.born_rank[t]
            slots.mass[p], slots.square[p], slots.kind[p] = (
                decided.born_mass[t],
                decided.born_square[t],
                decided.born_end[t],
            )
            if decided.born_kind[t] == ACTIVE:
                counters[BORN] += 1
            else:
                classes.trial[y] = p
    return born


@kernel()
def operations_of(decided: Decisions, born: Ints, slots: Slots, order: Ints, first: Longs, heirs: Ints) -> Operations:
    """The group's changes: attractions and lifts row by row, what heirs take over, then the pushes, row by row.

    ``heirs``: (n,) gets the slot whose correction the prototype promoted in row t takes over as it was at the group's
    start, or -1. What the group added to that correction before is repeated here for the heir.
    """
    n, places = decided.attract_code.shape
    most = n * (places + 1 + decided.push_slot.shape[1])
    for k in range(first.size - 1):
        for m in range(first[k], first[k + 1]):
            if decided.promoted[order[m]] != -1:
                most += m - first[k]
    row, slot = np.empty(most, np.int32), np.empty(most, np.int32)
    to_M, to_R = np.empty(most), np.empty(most)
    o = 0
    for t in range(n):
        for place in range(places + 1):
            lift = place == places
            code = decided.lift_code[t] if lift else decided.attract_code[t, place]
            p = _slot_of(code, born)
            if p >= 0 and slots.kind[p] != DEAD:
                row[o], slot[o] = t, p
                to_M[o] = 0.0 if lift else decided.attract_weight[t, place]
                to_R[o] = decided.lift[t] if lift else 0.0
                o += 1
    for k in range(first.size - 1):
        for m in range(first[k], first[k + 1]):
            t = order[m]
            heirs[t] = -1
            if decided.promoted[t] == -1:
                continue
            p, source, last = _slot_of(decided.promoted[t], born), decided.heir_of[t], m
            while last >= 0:
                until, last = last, -1
                for earlier in range(first[k], until):
                    s = order[earlier]
                    if decided.promoted[s] == source:
                        last = earlier
                for earlier in range(max(first[k], last), until):
                    s = order[earlier]
                    if decided.lift_code[s] == source:
                        row[o], slot[o], to_M[o], to_R[o] = s, p, 0.0, decided.lift[s]
                        o += 1
                if last >= 0:
                    source = decided.heir_of[order[last]]
            heirs[t] = source if source >= 0 else -1
    for t in range(n):
        for h in range(decided.push_slot.shape[1]):
            if decided.push_slot[t, h] >= 0:
                row[o], slot[o], to_M[o], to_R[o] = t, decided.push_slot[t, h], 0.0, decided.push_step[t, h]
                o += 1
    by_slot = np.argsort(slot[:o], kind="mergesort")
    return Operations(row[:o][by_slot], slot[:o][by_slot], to_M[:o][by_slot], to_R[:o][by_slot])


@kernel()
def _slot_of(code: int, born: Ints) -> int:
    return code if code >= -1 else born[-2 - code]


@kernel(error_model="numpy")
def finish_shared(
    rows: Rows, own_class: Ints, weight: Reals, decided: Decisions, frozen: Frozen, slots: Slots, classes: Classes,
    features: Features,
    scalars: Reals, rule: Rule, thief: Longs,
) -> None:  # fmt: skip
    """What crosses classes but for the pushes, in row order: thefts, violation rates, mean loss, idf statistics.

    ``thief``: id of the trial of each steal; a trial born since has stolen nothing.
    """
    omega = scalars[OMEGA]
    for t in range(own_class.size):
        for i in range(frozen.steal_start[t], frozen.steal_start[t + 1]):
            c = frozen.steal_class[i]
            if frozen.steal_score[i] > decided.right_score[t] and classes.trial[c] >= 0:
                classes.stolen[c] += slots.id[classes.trial[c]] == thief[i]
        if own_class[t] < 0:
            continue
        hits = 0
        for h in range(decided.push_slot.shape[1]):
            hits += decided.push_slot[t, h] >= 0
        for i in range(rows.indptr[t], rows.indptr[t + 1]):
            j = rows.indices[i]
            if hits > 0:
                features.violation[j] += omega * weight[t] * hits * rows.x[i] * rows.x[i]
            if rule.pmi > 0:
                features.total[j] += omega * weight[t] * abs(rows.x[i])
            if rule.idf:
                features.document_frequency[j] += omega * weight[t]
        scalars[LOSS_ROWS] += omega
        scalars[ROWS] += omega * weight[t]
        if decided.loss[t] >= 0:
            loss = decided.loss[t] * decided.loss[t]
            scalars[MEAN_LOSS] += (loss - scalars[MEAN_LOSS]) * max(0.001, omega / scalars[LOSS_ROWS])


def free_dead(slots: Slots) -> None:
    """Slots whose entries have been dropped can be taken again.

    Not a kernel: LLVM 22 stores bytes under a wrong mask where vectors have 512 bits (AMD Zen 4): living slots were
    freed.
    """
    dead = np.flatnonzero(slots.kind == DEAD)
    slots.kind[dead], slots.cls[dead], slots.next[dead] = FREE, 0, -1
    slots.mass[dead] = slots.square[dead] = 0
    slots.id[dead], slots.birth[dead] = -1, 0

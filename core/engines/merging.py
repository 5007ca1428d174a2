"""Prototypes of one class join: M and mass add, R is the mass-weighted mean.

`pairs_of` -> which classes have some that are near enough -> `join`, in all but the entries -> `changes_of` the entries
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from prototide.core.engines.dots import Dots
from prototide.core.engines.settling import bury
from prototide.core.engines.tables import ACTIVE, MERGED, Classes, Floats, Ints, Longs, Reals, Rule, Slots, chain_of

Absorbed = dict[int, list[tuple[int, float]]]  # slot -> the slots that it absorbed, and its share of the mass at each
Change = tuple[Longs, int, Floats]  # positions among some entries, the slot that changes there, values to be added


class Changes(NamedTuple):
    """What a merge adds to M, to R, and to the mutual information."""

    M: list[Change]
    R: list[Change]
    pmi: list[Change]


def pairs_of(which: Longs, slots: Slots, classes: Classes, dots: Dots, rank: Ints) -> tuple[Ints, Reals]:
    """Class and 1 - cosine of each pair of active prototypes of one of some classes."""
    left, right = [], []
    for c in which[classes.active[which] > 1].tolist():
        chain = [p for p in chain_of(slots, classes, c) if slots.kind[p] == ACTIVE]
        for i, a in enumerate(chain):
            left += [a] * (len(chain) - i - 1)
            right += chain[i + 1 :]
    one, other = np.array(left, np.int32), np.array(right, np.int32)
    of = slots.cls[one]
    product = dots.values[dots.places(of, rank[one], rank[other])]
    return of, 1 - product / np.sqrt(slots.square[one] * slots.square[other])


def threshold_of(rule: Rule, distance: Reals) -> float:
    """Distance up to which prototypes merge, given those of all pairs where the rule is relative to them."""
    threshold = rule.merge_distance * (float(distance.mean()) if rule.relative_merge and distance.size else 1.0)
    if rule.merge_percentile >= 0 and distance.size:
        threshold = min(threshold, float(np.quantile(distance, rule.merge_percentile)))
    return threshold


def join(c: int, threshold: float, counters: Longs, slots: Slots, classes: Classes, dots: Dots, rank: Ints) -> Absorbed:
    """Joins prototypes of a class in all but their entries."""
    chain = [p for p in chain_of(slots, classes, c) if slots.kind[p] == ACTIVE]
    products, absorbed = dots.block(c), Absorbed()
    for i, a in enumerate(chain):
        for b in chain[i + 1 :]:
            if slots.kind[a] != ACTIVE or slots.kind[b] != ACTIVE:
                continue
            ra, rb = rank[a], rank[b]
            if 1 - products[ra, rb] / np.sqrt(products[ra, ra] * products[rb, rb]) > threshold:
                continue
            absorbed.setdefault(a, []).append((b, float(slots.mass[a] / (slots.mass[a] + slots.mass[b]))))
            slots.mass[a] += slots.mass[b]
            both = products[ra, ra] + 2 * products[ra, rb] + products[rb, rb]
            products[ra] += products[rb]
            products[:, ra] += products[:, rb]
            products[ra, ra] = slots.square[a] = both
            bury(slots, classes, b)
            classes.active[c] -= 1
            counters[MERGED] += 1
    return absorbed


def involved(absorbed: Absorbed) -> Longs:
    """All slots that join."""
    return np.array([*absorbed, *(b for others in absorbed.values() for b, _ in others)])


def changes_of(absorbed: Absorbed, slot: Ints, M: Floats, R: Floats, pmi: Floats) -> Changes:
    """The changes that make the entries of `involved` slots those of the joined prototypes."""
    by_slot = np.argsort(slot, kind="stable")
    sorted_slots = slot[by_slot]

    def entries_of(p: int) -> Longs:
        first, end = np.searchsorted(sorted_slots, np.array([p, p + 1], slot.dtype))
        return by_slot[first:end]

    changes = Changes([], [], [])
    for a, others in absorbed.items():
        weight = 1.0  # of R_a as it was
        for b, share in reversed(others):
            at = entries_of(b)
            changes.M.append((at, a, M[at]))
            changes.R.append((at, a, weight * (1 - share) * R[at]))
            changes.pmi.append((at, a, weight * (1 - share) * pmi[at]))
            weight *= share
        at = entries_of(a)
        changes.R.append((at, a, (weight - 1) * R[at]))
        changes.pmi.append((at, a, (weight - 1) * pmi[at]))
    return changes

"""What a group's rows mean for their own classes, decided class by class, in parallel, before any entry changes.

The rule is that of `learning.learn_rows`; only the bookkeeping differs. The products M_p . x and R_p . x of the class's
prototypes come from the scoring at the group's start; what its earlier rows in the group changed is added from dense
rows over the few features that these rows have. Prototypes born in the group have no slot yet: their code is
-2 - (row of birth).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange

from prototide.core.compiling import kernel
from prototide.core.engines.changing import parts_of
from prototide.core.engines.learning import responsibility
from prototide.core.engines.tables import (
    ACTIVE,
    MEAN_LOSS,
    OMEGA,
    TRIAL,
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

PARTS = 64  # of the classes, that the threads share out
DEAD = 3  # kind of a slot whose prototype is gone, until the next maintenance has taken out its entries
NOBODY = -1


class Decisions(NamedTuple):
    """Per row of the group; codes are slots, or -2 - row for a prototype born in the group, -1 for none."""

    attract_code: Ints  # (n, most prototypes of a class + 1)
    attract_weight: Reals
    lift_code: Ints  # (n,) the own prototype that is corrected
    lift: Reals  # (n,) M: times rate * x
    push_slot: Ints  # (n, wrong classes)
    push_step: Reals
    born_kind: Ints  # (n,) kind at birth, 0: nothing born
    born_rank: Ints  # (n,) place among the class's prototypes
    born_mass: Reals  # (n,) mass of what was born, at the group's end
    born_square: Reals  # (n,) |M|^2 at the group's end
    born_end: Ints  # (n,) kind at the group's end
    gone: Ints  # (n,) code of the trial that this row's class discarded
    promoted: Ints  # (n,) code of the trial that became active,
    heir_of: Ints  # (n,) code of the prototype whose correction it takes over
    right_score: Reals  # (n,) score of the own class where the row was right and could have been stolen, else inf
    own_code: Ints  # (n,) the best own prototype just before the row was learned,
    own_score: Reals  # (n,) and its score
    loss: Reals  # (n,) -1: none


@kernel()
def empty_decisions(rows: int, prototypes: int, wrong: int) -> Decisions:
    """Nothing decided."""
    one = np.full((8, rows), -1, np.int32)
    one[1] = 0
    one[4] = 0
    return Decisions(
        np.full((rows, prototypes), -1, np.int32), np.zeros((rows, prototypes)), one[0], np.zeros(rows),
        np.full((rows, wrong), -1, np.int32), np.zeros((rows, wrong)), one[1], one[2], np.zeros(rows), np.zeros(rows),
        one[4], one[3], one[5], one[6], np.full(rows, np.inf), one[7], np.zeros(rows), np.full(rows, -1.0),
    )  # fmt: skip


@kernel(parallel=True, error_model="numpy")
def correction_rates(rows: Rows, features: Features, omega: float, rate: Reals) -> None:
    """rate <- mu of every non-zero."""
    for t in prange(rows.indptr.size - 1):
        for i in range(rows.indptr[t], rows.indptr[t + 1]):
            rate[i] = 1 / np.sqrt(1 + features.violation[rows.indices[i]] / omega)


@kernel()
def _local_features(rows: Rows, members: Ints, local: Ints, place: Longs) -> int:
    """Numbers the features of a class's rows 0..n-1: ``local`` gets the numbers, row m's from place[m] on."""
    total, n = place[members.size], 0
    if members.size == 1:
        for i in range(total):
            local[i] = i
        return total
    size = 4
    while size < 2 * total:
        size *= 2
    keys, numbers = np.full(size, -1, np.int32), np.empty(size, np.int32)  # a hash table
    for m in range(members.size):
        for i in range(place[m + 1] - place[m]):
            j = rows.indices[rows.indptr[members[m]] + i]
            at = np.int64(j) * 2654435761 >> 7 & (size - 1)
            while keys[at] != j and keys[at] >= 0:
                at = (at + 1) & (size - 1)
            if keys[at] < 0:
                keys[at], numbers[at] = j, n
                n += 1
            local[place[m] + i] = numbers[at]
    return n


@kernel(parallel=True)
def decide(
    rows: Rows, rate: Reals, weight: Reals, order: Ints, first: Longs, present: Ints, frozen: Frozen, own_M: Reals,
    own_R: Reals,
    slots: Slots, rank: Ints, classes: Classes, scalars: Reals, rule: Rule, dots: Reals, dots_first: Longs,
    dots_size: Ints,
    out: Decisions,
) -> None:  # fmt: skip
    """Class present[k] learns the rows order[first[k]:first[k + 1]], in that order. Writes ``out`` and its own tables.

    ``dots``: products M_a . M_b of each class's prototypes by rank, from dots_first[c] on, dots_size[c] a row.
    """
    part = parts_of(first, min(PARTS, present.size))
    for s in prange(part.size - 1):  # numba drops writes to a tuple's arrays inside a parallel loop: hence the call
        _decide_classes(
            rows, rate, weight, order, first, present, part[s], part[s + 1], frozen, own_M, own_R, slots, rank,
            classes, scalars, rule, dots, dots_first, dots_size, out,
        )  # fmt: skip


@kernel(error_model="numpy")
def _decide_classes(
    rows: Rows, rate: Reals, weight: Reals, order: Ints, first: Longs, present: Ints, begins: int, ends: int,
    frozen: Frozen, own_M: Reals, own_R: Reals, slots: Slots, rank: Ints, classes: Classes, scalars: Reals,
    rule: Rule, dots: Reals, dots_first: Longs, dots_size: Ints, out: Decisions,
) -> None:  # fmt: skip
    """Classes present[begins:ends]. Loops over them: to hand over so many arrays takes longer than many a class."""
    omega, tau = scalars[OMEGA], rule.tau
    longest = 0
    for k in range(begins, ends):
        longest = max(longest, dots_size[present[k]])
    # the class's prototypes: code, kind, rank, place in own_M and own_R (-1: born in this group)
    code, kind = np.empty(longest, np.int32), np.empty(longest, np.int8)
    ranks, in_M, in_R = np.empty(longest, np.int32), np.empty(longest, np.int32), np.empty(longest, np.int32)
    mass, centre, cos = np.empty(longest), np.empty(longest), np.empty(longest)
    correction, score, shares = np.empty(longest), np.empty(longest), np.empty(longest + 1)
    taken = np.empty(longest, np.bool_)
    for k in range(begins, ends):
        y, members = present[k], order[first[k] : first[k + 1]]
        base, size = dots_first[y], dots_size[y]
        taken[:] = False
        alive, p = 0, classes.first[y]
        while p >= 0:
            code[alive], kind[alive], ranks[alive] = p, slots.kind[p], rank[p]
            in_M[alive] = in_R[alive] = alive
            mass[alive] = slots.mass[p]
            taken[rank[p]] = True
            alive += 1
            p = slots.next[p]
        place = np.empty(members.size + 1, np.int64)
        place[0] = 0
        for m in range(members.size):
            place[m + 1] = place[m] + rows.indptr[members[m] + 1] - rows.indptr[members[m]]
        local = np.empty(place[members.size], np.int32)
        n = _local_features(rows, members, local, place)
        many = members.size > 1
        changed_M = np.zeros((size, n if many else 0))
        changed_R = np.zeros((size, n if many else 0))
        for m in range(members.size):
            t = members[m]
            begin, here = rows.indptr[t], local[place[m] : place[m + 1]]
            x = rows.x[begin : rows.indptr[t + 1]]
            power = omega * weight[t]
            # 1. the own class, with what it has learned in this group
            best = NOBODY
            for a in range(alive):
                product = own_M[t, in_M[a]] if in_M[a] >= 0 else 0.0
                push = own_R[t, in_R[a]] if in_R[a] >= 0 else 0.0
                if m > 0:
                    for i in range(here.size):
                        product += x[i] * changed_M[ranks[a], here[i]]
                        push += x[i] * changed_R[ranks[a], here[i]]
                square = dots[base + ranks[a] * size + ranks[a]]
                centre[a] = product
                cos[a] = product / np.sqrt(square) if square > 0 else 0.0
                correction[a] = push / omega
                score[a] = tau * cos[a] + correction[a]
                if kind[a] == ACTIVE and (best < 0 or score[a] > score[best]):
                    best = a
            wrong = -np.inf
            for h in range(frozen.top_class.shape[1]):
                if frozen.top_class[t, h] >= 0 and frozen.top_class[t, h] != y:
                    wrong = frozen.top_score[t, h]
                    break
            if best >= 0:
                out.own_code[t], out.own_score[t] = code[best], score[best]
            share = _zeros(shares, alive + 1)
            # 2. an unseen class: its first prototype is this row
            if best < 0:
                best = alive
                alive = _born(code, kind, ranks, in_M, in_R, mass, taken, alive, t, ACTIVE, dots, base, size)
                centre[best] = cos[best] = correction[best] = score[best] = 0
                out.born_kind[t], out.born_rank[t] = ACTIVE, ranks[best]
                classes.active[y], classes.trial[y], classes.wait[y], classes.errors[y] = 1, -1, rule.grow_after, 0
            elif wrong > -np.inf:
                own = score[best]
                error = own < wrong
                if rule.correction > 0:
                    out.loss[t] = max(0.0, rule.margin - (own - wrong))
                # 3. grow: a trial is a silent centre that must earn its place
                if classes.limit[y] > 1:
                    if not error:
                        out.right_score[t] = own
                    a = 0
                    while a < alive and kind[a] != TRIAL:
                        a += 1
                    if a < alive:
                        classes.age[y] += 1
                        if error and tau * cos[a] + correction[best] > wrong:
                            classes.saved[y] += 1
                        if cos[a] > cos[best]:
                            share[a] = 1.0
                        gain = classes.saved[y] - classes.stolen[y]
                        if gain >= rule.grow_gain and gain >= rule.grow_z * np.sqrt(
                            classes.saved[y] + classes.stolen[y]
                        ):
                            if share[a] > 0:  # the trial's own attraction comes before its promotion
                                _attract_trial(
                                    t, a, power, code, mass, centre, share, alive, ranks, dots, base, size, out
                                )
                                if many:
                                    for i in range(here.size):
                                        changed_M[ranks[a], here[i]] += power * x[i]
                                share[a] = 0
                            kind[a] = ACTIVE
                            out.promoted[t], out.heir_of[t] = code[a], code[best]
                            in_R[a] = in_R[best]
                            if many:
                                changed_R[ranks[a]] = changed_R[ranks[best]]
                            correction[a] = correction[best]
                            score[a] = tau * cos[a] + correction[a]
                            classes.active[y] += 1
                            classes.trial[y], classes.errors[y] = -1, 0
                            if score[a] > own:
                                best = a
                        elif classes.age[y] >= rule.trial_rows or gain <= -rule.grow_gain:
                            out.gone[t] = code[a]
                            taken[ranks[a]] = False
                            if many:
                                changed_M[ranks[a]] = 0
                                changed_R[ranks[a]] = 0
                            _forget(
                                code, kind, ranks, in_M, in_R, mass, centre, cos, correction, score, share, alive, a
                            )
                            alive -= 1
                            best -= best > a
                            classes.trial[y], classes.errors[y] = -1, 0
                            classes.wait[y] *= 2
                        elif share[a] > 0:
                            _attract_trial(t, a, power, code, mass, centre, share, alive, ranks, dots, base, size, out)
                            if many:
                                for i in range(here.size):
                                    changed_M[ranks[a], here[i]] += power * x[i]
                            share[a] = 0
                    elif error and classes.active[y] < classes.limit[y]:
                        classes.errors[y] += 1
                        if classes.errors[y] >= classes.wait[y]:
                            a = alive
                            alive = _born(code, kind, ranks, in_M, in_R, mass, taken, alive, t, TRIAL, dots, base, size)
                            centre[a] = cos[a] = correction[a] = score[a] = 0
                            out.born_kind[t], out.born_rank[t] = TRIAL, ranks[a]
                            share = _zeros(shares, alive + 1)
                            share[a] = 1.0
                            _attract_trial(t, a, power, code, mass, centre, share, alive, ranks, dots, base, size, out)
                            if many:
                                for i in range(here.size):
                                    changed_M[ranks[a], here[i]] += power * x[i]
                            classes.trial[y] = 0  # the slot follows when it has one
                            classes.saved[y] = classes.stolen[y] = classes.age[y] = 0
            # 4. attract: the K-means step, shared by closeness to the best own prototype
            total = 0.0
            for a in range(alive):
                share[a] = 0
                if kind[a] == ACTIVE:
                    share[a] = responsibility(cos[a] - cos[best], rule.kernel, rule.width)
                    total += share[a]
            for a in range(alive):
                share[a] = share[a] / total if share[a] / total > rule.min_share else 0.0
                if share[a] > 0:
                    mass[a] += power * share[a]
                    _note_attraction(t, code[a], power * share[a], out)
            for a in range(alive):
                if share[a] > 0:
                    if many:
                        for i in range(here.size):
                            changed_M[ranks[a], here[i]] += power * share[a] * x[i]
                    for b in range(alive):
                        if b != a:
                            both = power * share[a] * (centre[b] + 0.5 * power * share[b])
                            dots[base + ranks[a] * size + ranks[b]] += both
                            dots[base + ranks[b] * size + ranks[a]] += both
                    dots[base + ranks[a] * size + ranks[a]] += power * share[a] * (2 * centre[a] + power * share[a])
            if rule.correction == 0:
                continue
            # 5. correct: lift the own prototype, note the pushes on the best wrong classes inside the margin
            v = 0.0
            for i in range(x.size):
                v += rate[begin + i] * x[i] * x[i]
            square = dots[base + ranks[best] * size + ranks[best]]
            own = correction[best]
            if square > 0:
                own += tau * (centre[best] + power * share[best]) / np.sqrt(square)
            hits, lift = 0, 0.0
            for h in range(frozen.top_class.shape[1]):
                if (
                    hits == rule.wrong_classes
                    or frozen.top_class[t, h] < 0
                    or own - frozen.top_score[t, h] >= rule.margin
                ):
                    break
                if frozen.top_class[t, h] == y:
                    continue
                violation = rule.margin - (own - frozen.top_score[t, h])
                step = rule.correction * violation / (2 * v + rule.noise + rule.noise_adapt * scalars[MEAN_LOSS])
                if weight[t] != 1:  # a heavy row closes its violation, no more
                    step = min(step * weight[t], max(step, violation / (2 * v)))
                lift += step
                out.push_slot[t, hits], out.push_step[t, hits] = frozen.top_slot[t, h], -omega * step
                hits += 1
                own += step * v
            if hits > 0:
                out.lift_code[t], out.lift[t] = code[best], omega * lift
                if many:
                    for i in range(here.size):
                        changed_R[ranks[best], here[i]] += omega * lift * rate[begin + i] * x[i]
        for a in range(alive):  # what the class's prototypes have become
            square = dots[base + ranks[a] * size + ranks[a]]
            if code[a] >= 0:
                slots.kind[code[a]], slots.mass[code[a]], slots.square[code[a]] = kind[a], mass[a], square
            else:
                t = -2 - code[a]
                out.born_mass[t], out.born_square[t], out.born_end[t] = mass[a], square, kind[a]


@kernel()
def _zeros(array: Reals, size: int) -> Reals:
    array[:size] = 0
    return array[:size]


@kernel()
def _born(
    code: Ints, kind: Ints, ranks: Ints, in_M: Ints, in_R: Ints, mass: Reals, taken: Longs, alive: int, t: int,
    as_kind: int,
    dots: Reals, base: int, size: int,
) -> int:  # fmt: skip
    """A prototype without slot at the list's end, in the lowest free rank; how many there are then."""
    r = 0
    while taken[r]:
        r += 1
    taken[r] = True
    code[alive], kind[alive], ranks[alive], in_M[alive], in_R[alive], mass[alive] = -2 - t, as_kind, r, -1, -1, 0.0
    for b in range(size):
        dots[base + r * size + b] = 0
        dots[base + b * size + r] = 0
    return alive + 1


@kernel()
def _note_attraction(t: int, code: int, weight: float, out: Decisions) -> None:
    for place in range(out.attract_code.shape[1]):
        if out.attract_code[t, place] == -1:
            out.attract_code[t, place], out.attract_weight[t, place] = code, weight
            return


@kernel()
def _attract_trial(
    t: int, a: int, power: float, code: Ints, mass: Reals, centre: Reals, share: Reals, alive: int, ranks: Ints,
    dots: Reals,
    base: int, size: int, out: Decisions,
) -> None:  # fmt: skip
    """The trial a takes the row whole; its products follow."""
    mass[a] += power
    _note_attraction(t, code[a], power, out)
    for b in range(alive):
        if b != a:
            dots[base + ranks[a] * size + ranks[b]] += power * centre[b]
            dots[base + ranks[b] * size + ranks[a]] += power * centre[b]
    dots[base + ranks[a] * size + ranks[a]] += power * (2 * centre[a] + power)
    centre[a] += power


@kernel()
def _forget(
    code: Ints, kind: Ints, ranks: Ints, in_M: Ints, in_R: Ints, mass: Reals, centre: Reals, cos: Reals,
    correction: Reals, score: Reals,
    share: Reals, alive: int, gone: int,
) -> None:  # fmt: skip
    """Takes a prototype out of the class's list."""
    for a in range(gone, alive - 1):
        code[a], kind[a], ranks[a], in_M[a], in_R[a], mass[a] = (
            code[a + 1],
            kind[a + 1],
            ranks[a + 1],
            in_M[a + 1],
            in_R[a + 1],
            mass[a + 1],
        )
        centre[a], cos[a], correction[a], score[a], share[a] = (
            centre[a + 1],
            cos[a + 1],
            correction[a + 1],
            score[a + 1],
            share[a + 1],
        )

"""Learning one group of rows: every class its own rows in order, then what crosses classes.

The other classes' scores are frozen at the group's start (`tables.Frozen`), so a class depends on its own rows only.
"""

from __future__ import annotations

import numpy as np

from prototide.core.compiling import kernel
from prototide.core.engines.postings import (
    Holdings,
    Postings,
    add_to_centre,
    add_to_correction,
    clear,
    find,
    gather,
    insert,
    pmi_of,
    products,
)  # fmt: skip
from prototide.core.engines.tables import (
    ACTIVE,
    BORN,
    FREE,
    LINEAR,
    LOSS_ROWS,
    MEAN_LOSS,
    NEXT_ID,
    OMEGA,
    ROWS,
    SOFTMAX,
    STEP,
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
    Trace,
)  # fmt: skip


@kernel()
def occupy(slots: Slots, classes: Classes, counters: Longs, c: int, kind: int, lowest: int = 0) -> int:
    """The lowest free slot, given to class c. The caller knows that none below ``lowest`` is free."""
    p = lowest
    while slots.kind[p] != FREE:
        p += 1
    slots.kind[p], slots.cls[p] = kind, c
    slots.mass[p] = slots.square[p] = 0
    slots.id[p], slots.birth[p] = counters[NEXT_ID], counters[STEP]
    counters[NEXT_ID] += 1
    before, after = -1, classes.first[c]
    while after >= 0 and after < p:
        before, after = after, slots.next[after]
    slots.next[p] = after
    if before < 0:
        classes.first[c] = p
    else:
        slots.next[before] = p
    return p


@kernel()
def vacate(postings: Postings, holdings: Holdings, slots: Slots, classes: Classes, p: int) -> None:
    """Frees the slot and all its entries."""
    clear(postings, holdings, p)
    c = slots.cls[p]
    if classes.first[c] == p:
        classes.first[c] = slots.next[p]
    else:
        before = classes.first[c]
        while slots.next[before] != p:
            before = slots.next[before]
        slots.next[before] = slots.next[p]
    slots.kind[p], slots.cls[p], slots.next[p] = FREE, 0, -1
    slots.mass[p] = slots.square[p] = 0
    slots.id[p], slots.birth[p] = -1, 0


@kernel(error_model="numpy")
def responsibility(difference: float, kernel: int, width: float) -> float:
    """Unnormalised; difference = cosine - best own cosine <= 0."""
    if kernel == LINEAR:
        return max(0.0, width + difference)
    if kernel == SOFTMAX:
        return np.exp(difference / width)
    return 1.0 if difference == 0 else 0.0


@kernel()
def _copy_correction(postings: Postings, holdings: Holdings, source: int, target: int) -> tuple[Postings, Holdings]:
    """R_target <- R_source (target has none yet)."""
    features, _, R, pmi = gather(postings, holdings, source)
    for i in range(features.size):
        if R[i] != 0:
            at = find(postings, features[i], target)
            if at < 0:
                postings, holdings, at = insert(postings, holdings, features[i], target, -1 - at)
            postings.R[at], postings.pmi[at] = R[i], pmi[i]
    return postings, holdings


@kernel()
def _note(trace: Trace, t: int, p: int, weight: float) -> None:
    i = trace.end[0]
    trace.row[i], trace.slot[i], trace.weight[i] = t, p, weight
    trace.end[0] = i + 1


@kernel(error_model="numpy")
def learn_rows(
    rows: Rows,
    own_class: Ints,
    weight: Reals,
    frozen: Frozen,
    postings: Postings,
    holdings: Holdings,
    slots: Slots,
    classes: Classes,
    features: Features,
    scalars: Reals,
    counters: Longs,
    rule: Rule,
    trace: Trace,
    stolen: Longs,
    loss: Reals,
    push_slot: Ints,
    push_step: Reals,
) -> tuple[Postings, Holdings]:
    """Every class learns its rows of the group; pushes on other classes, steals and losses are only noted.

    Rows with ``own_class`` -1 are not learned. Returns (postings, holdings).
    """
    omega, tau = scalars[OMEGA], rule.tau
    cos, correction, score = np.empty(slots.kind.size), np.empty(slots.kind.size), np.empty(slots.kind.size)
    rate = np.empty(rows.indices.size)
    for t in range(own_class.size):
        y = own_class[t]
        if y < 0:
            continue
        begin, end = rows.indptr[t], rows.indptr[t + 1]
        ix, x = rows.indices[begin:end], rows.x[begin:end]
        power = omega * weight[t]
        # 1. the own class, with what it has learned in this group
        best, p = -1, classes.first[y]
        while p >= 0:
            centre, push = products(postings, ix, x, p)
            cos[p] = centre / np.sqrt(slots.square[p]) if slots.square[p] > 0 else 0.0
            correction[p] = push / omega
            score[p] = tau * cos[p] + correction[p]
            if slots.kind[p] == ACTIVE and (best < 0 or score[p] > score[best]):
                best = p
            p = slots.next[p]
        wrong = -np.inf
        for h in range(frozen.top_class.shape[1]):
            if frozen.top_class[t, h] >= 0 and frozen.top_class[t, h] != y:
                wrong = frozen.top_score[t, h]
                break
        if best >= 0:
            trace.own_slot[t], trace.own_score[t] = best, score[best]
        # 2. an unseen class: its first prototype is this row
        if best < 0:
            best = occupy(slots, classes, counters, y, ACTIVE)
            classes.active[y], classes.trial[y], classes.wait[y] = 1, -1, rule.grow_after
            classes.errors[y] = 0
            counters[BORN] += 1
            cos[best] = 0.0
        elif wrong > -np.inf:
            own = score[best]
            error = own < wrong
            if rule.correction > 0:
                loss[t] = max(0.0, rule.margin - (own - wrong))
            # 3. grow: a trial is a silent centre that must earn its place
            if classes.limit[y] > 1:
                if not error:
                    for i in range(frozen.steal_start[t], frozen.steal_start[t + 1]):
                        if frozen.steal_score[i] > own:
                            stolen[frozen.steal_class[i]] += 1
                p = classes.trial[y]
                if p >= 0:
                    classes.age[y] += 1
                    if error and tau * cos[p] + correction[best] > wrong:
                        classes.saved[y] += 1
                    if cos[p] > cos[best]:
                        postings, holdings, change = add_to_centre(postings, holdings, ix, x, power, p)
                        slots.square[p] += change
                        slots.mass[p] += power
                        _note(trace, t, p, power)
                    gain = classes.saved[y] - classes.stolen[y]
                    if gain >= rule.grow_gain and gain >= rule.grow_z * np.sqrt(classes.saved[y] + classes.stolen[y]):
                        slots.kind[p] = ACTIVE
                        postings, holdings = _copy_correction(postings, holdings, best, p)
                        correction[p] = correction[best]
                        score[p] = tau * cos[p] + correction[p]
                        classes.active[y] += 1
                        classes.trial[y], classes.errors[y] = -1, 0
                        slots.birth[p] = counters[STEP]
                        counters[BORN] += 1
                        if score[p] > own:
                            best = p
                    elif classes.age[y] >= rule.trial_rows or gain <= -rule.grow_gain:
                        vacate(postings, holdings, slots, classes, p)
                        classes.trial[y], classes.errors[y] = -1, 0
                        classes.wait[y] *= 2
                elif error and classes.active[y] < classes.limit[y]:
                    classes.errors[y] += 1
                    if classes.errors[y] >= classes.wait[y]:
                        p = occupy(slots, classes, counters, y, TRIAL)
                        postings, holdings, change = add_to_centre(postings, holdings, ix, x, power, p)
                        slots.square[p] += change
                        slots.mass[p] += power
                        _note(trace, t, p, power)
                        classes.trial[y] = p
                        classes.saved[y] = classes.stolen[y] = classes.age[y] = 0
        # 4. attract: the K-means step, shared by closeness to the best own prototype
        total, p = 0.0, classes.first[y]
        while p >= 0:
            if slots.kind[p] == ACTIVE:
                total += responsibility(cos[p] - cos[best], rule.kernel, rule.width)
            p = slots.next[p]
        p = classes.first[y]
        while p >= 0:
            if slots.kind[p] == ACTIVE:
                share = responsibility(cos[p] - cos[best], rule.kernel, rule.width) / total
                if share > rule.min_share:
                    postings, holdings, change = add_to_centre(postings, holdings, ix, x, power * share, p)
                    slots.square[p] += change
                    slots.mass[p] += power * share
                    _note(trace, t, p, power * share)
            p = slots.next[p]
        if rule.correction == 0:
            continue
        # 5. correct: lift the own prototype at once, note the pushes on the best wrong classes inside the margin
        v = 0.0
        for i in range(ix.size):
            rate[i] = 1 / np.sqrt(1 + features.violation[ix[i]] / omega)
            v += rate[i] * x[i] * x[i]
        centre, push = products(postings, ix, x, best)
        own = (tau * centre / np.sqrt(slots.square[best]) if slots.square[best] > 0 else 0.0) + push / omega
        hits = 0
        for h in range(frozen.top_class.shape[1]):
            if hits == rule.wrong_classes or frozen.top_class[t, h] < 0 or own - frozen.top_score[t, h] >= rule.margin:
                break
            if frozen.top_class[t, h] == y:
                continue
            violation = rule.margin - (own - frozen.top_score[t, h])
            step = rule.correction * violation / (2 * v + rule.noise + rule.noise_adapt * scalars[MEAN_LOSS])
            if weight[t] != 1:  # a heavy row closes its violation, no more
                step = min(step * weight[t], max(step, violation / (2 * v)))
            postings, holdings = add_to_correction(postings, holdings, ix, x, rate, omega * step, best)
            push_slot[t, hits], push_step[t, hits] = frozen.top_slot[t, h], step
            hits += 1
            own += step * v
    return postings, holdings


@kernel(error_model="numpy")
def finish_group(
    rows: Rows,
    own_class: Ints,
    weight: Reals,
    postings: Postings,
    holdings: Holdings,
    slots: Slots,
    classes: Classes,
    features: Features,
    scalars: Reals,
    rule: Rule,
    trial_id: Longs,
    stolen: Longs,
    loss: Reals,
    push_slot: Ints,
    push_step: Reals,
) -> tuple[Postings, Holdings]:
    """What crosses classes, in row order: steals, pushes, violation rates, mean loss, idf statistics.

    ``trial_id``: id of each class's trial at the group's start, -1 for none; a trial born later has stolen nothing yet.
    """
    omega = scalars[OMEGA]
    for c in range(stolen.size):
        if trial_id[c] >= 0 and classes.trial[c] >= 0 and slots.id[classes.trial[c]] == trial_id[c]:
            classes.stolen[c] += stolen[c]
    rate = np.empty(rows.indices.size)
    for t in range(own_class.size):
        begin, end = rows.indptr[t], rows.indptr[t + 1]
        ix, x = rows.indices[begin:end], rows.x[begin:end]
        for h in range(push_slot.shape[1]):
            if push_slot[t, h] < 0:
                break
            if h == 0:
                for i in range(ix.size):
                    rate[i] = 1 / np.sqrt(1 + features.violation[ix[i]] / omega)
            postings, holdings = add_to_correction(
                postings, holdings, ix, x, rate, -omega * push_step[t, h], push_slot[t, h]
            )
    for t in range(own_class.size):
        if own_class[t] < 0:
            continue
        hits = 0
        for h in range(push_slot.shape[1]):
            hits += push_slot[t, h] >= 0
        for i in range(rows.indptr[t], rows.indptr[t + 1]):
            j = rows.indices[i]
            features.violation[j] += omega * weight[t] * hits * rows.x[i] * rows.x[i]
            if rule.pmi > 0:
                features.total[j] += omega * weight[t] * abs(rows.x[i])
            if rule.idf:
                features.document_frequency[j] += omega * weight[t]
        scalars[LOSS_ROWS] += omega
        scalars[ROWS] += omega * weight[t]
        if loss[t] >= 0:
            scalars[MEAN_LOSS] += (loss[t] * loss[t] - scalars[MEAN_LOSS]) * max(0.001, omega / scalars[LOSS_ROWS])
    return postings, holdings


@kernel()
def refresh_pmi(
    rows: Rows, trace: Trace, postings: Postings, slots: Slots, features: Features, scalars: Reals, weight: float
) -> None:
    """The mutual information, anew, of every entry that an active prototype attracted in the group; R follows."""
    for k in range(trace.end[0]):
        p, t = trace.slot[k], trace.row[k]
        if slots.kind[p] != ACTIVE:
            continue
        for i in range(rows.indptr[t], rows.indptr[t + 1]):
            j = rows.indices[i]
            at = find(postings, j, p)
            if at < 0:
                continue  # attracted by a trial that is gone
            before = postings.pmi[at]
            postings.pmi[at] = pmi_of(postings.M[at], features.total[j], slots.mass[p], scalars, weight)
            postings.R[at] += postings.pmi[at] - before


@kernel()
def seed_rows(
    rows: Rows,
    own_class: Ints,
    weight: Reals,
    postings: Postings,
    holdings: Holdings,
    slots: Slots,
    classes: Classes,
    counters: Longs,
    rule: Rule,
) -> tuple[Postings, Holdings]:
    """Every row becomes an active prototype of its class."""
    for t in range(own_class.size):
        begin, end = rows.indptr[t], rows.indptr[t + 1]
        p = occupy(slots, classes, counters, own_class[t], ACTIVE)
        postings, holdings, change = add_to_centre(
            postings, holdings, rows.indices[begin:end], rows.x[begin:end], weight[t], p
        )
        slots.square[p] += change
        slots.mass[p] += weight[t]
        classes.active[own_class[t]] += 1
        classes.wait[own_class[t]] = rule.grow_after
        counters[BORN] += 1
    return postings, holdings

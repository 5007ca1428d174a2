"""What happens every 1,024 learned rows: rescale, prune; merge and truncate in the classes that learned since."""

from __future__ import annotations

import numpy as np

from prototide.core.compiling import kernel
from prototide.core.engines.budget import BUCKETS, bucket
from prototide.core.engines.learning import vacate
from prototide.core.engines.postings import Holdings, Postings, find, gather, insert, remove
from prototide.core.engines.tables import (
    ACTIVE,
    FREE,
    LOSS_ROWS,
    MERGED,
    OMEGA,
    PRUNED,
    ROWS,
    Classes,
    Features,
    Flags,
    Longs,
    Reals,
    Rule,
    Slots,
)  # fmt: skip


@kernel()
def rescale(postings: Postings, slots: Slots, features: Features, scalars: Reals) -> None:
    """Divides everything additive by omega, which becomes 1; no score changes."""
    omega = scalars[OMEGA]
    for j in range(postings.start.size):
        for i in range(postings.start[j], postings.start[j] + postings.length[j]):
            postings.M[i] /= omega
            postings.R[i] /= omega
            postings.pmi[i] /= omega
    slots.mass[:] /= omega
    slots.square[:] /= omega * omega
    features.document_frequency[:] /= omega
    features.violation[:] /= omega
    features.total[:] /= omega
    scalars[ROWS] /= omega
    scalars[LOSS_ROWS] /= omega
    scalars[OMEGA] = 1.0


@kernel()
def prune(
    postings: Postings, holdings: Holdings, slots: Slots, classes: Classes, scalars: Reals, counters: Longs, rule: Rule
) -> None:
    """Drops prototypes lighter than ``min_weight``, the lightest first, the last of a class only to forget it."""
    for c in range(classes.active.size):
        while classes.active[c] > (0 if rule.forget_classes else 1):
            lightest, p = -1, classes.first[c]
            while p >= 0:
                if slots.kind[p] == ACTIVE and (lightest < 0 or slots.mass[p] < slots.mass[lightest]):
                    lightest = p
                p = slots.next[p]
            if slots.mass[lightest] / scalars[OMEGA] >= rule.min_weight:
                break
            vacate(postings, holdings, slots, classes, lightest)
            classes.active[c] -= 1
            counters[PRUNED] += 1
        if classes.active[c] == 0 and classes.trial[c] >= 0:  # a forgotten class
            vacate(postings, holdings, slots, classes, classes.trial[c])
            classes.trial[c] = -1


@kernel()
def pair_distances(postings: Postings, holdings: Holdings, slots: Slots, classes: Classes, out: Reals) -> int:
    """1 - cosine of all same-class pairs of active prototypes; with empty ``out`` only their number."""
    dense = np.zeros(postings.start.size)
    found = 0
    for c in range(classes.active.size):
        if classes.active[c] < 2:
            continue
        a = classes.first[c]
        while a >= 0:
            if slots.kind[a] == ACTIVE:
                features, M, _, _ = gather(postings, holdings, a)
                dense[features] = M
                p = slots.next[a]
                while p >= 0:
                    if slots.kind[p] == ACTIVE:
                        if out.size > 0:
                            out[found] = _distance(dense, postings, holdings, slots, a, p)
                        found += 1
                    p = slots.next[p]
                dense[features] = 0
            a = slots.next[a]
    return found


@kernel(error_model="numpy")
def _distance(dense: Reals, postings: Postings, holdings: Holdings, slots: Slots, a: int, p: int) -> float:
    """1 - cosine; ``dense`` holds M_a."""
    features, M, _, _ = gather(postings, holdings, p)
    dot = 0.0
    for i in range(features.size):
        dot += dense[features[i]] * M[i]
    return 1 - dot / np.sqrt(slots.square[a] * slots.square[p])


@kernel()
def merge(
    postings: Postings,
    holdings: Holdings,
    slots: Slots,
    classes: Classes,
    counters: Longs,
    threshold: float,
    touched: Flags,
) -> tuple[Postings, Holdings]:
    """Joins prototypes of one class at most ``threshold`` apart: M and mass add, R is the mass-weighted mean."""
    dense = np.zeros(postings.start.size)
    for c in range(touched.size):
        if not touched[c] or classes.active[c] < 2:
            continue
        a = classes.first[c]
        while a >= 0:
            if slots.kind[a] == ACTIVE:
                features, M, _, _ = gather(postings, holdings, a)
                dense[features] = M
                p = slots.next[a]
                while p >= 0:
                    after = slots.next[p]
                    if slots.kind[p] == ACTIVE and _distance(dense, postings, holdings, slots, a, p) <= threshold:
                        dense[features] = 0
                        postings, holdings = _join(postings, holdings, slots, a, p)
                        vacate(postings, holdings, slots, classes, p)
                        classes.active[c] -= 1
                        counters[MERGED] += 1
                        features, M, _, _ = gather(postings, holdings, a)
                        dense[features] = M
                    p = after
                dense[features] = 0
            a = slots.next[a]
    return postings, holdings


@kernel(error_model="numpy")
def _join(postings: Postings, holdings: Holdings, slots: Slots, a: int, p: int) -> tuple[Postings, Holdings]:
    share = slots.mass[a] / (slots.mass[a] + slots.mass[p])
    features, _, _, _ = gather(postings, holdings, a)
    for i in range(features.size):
        at = find(postings, features[i], a)
        postings.R[at] *= share
        postings.pmi[at] *= share
    features, M, R, pmi = gather(postings, holdings, p)
    for i in range(features.size):
        at = find(postings, features[i], a)
        if at < 0:
            postings, holdings, at = insert(postings, holdings, features[i], a, -1 - at)
        postings.M[at] += M[i]
        postings.R[at] += (1 - share) * R[i]
        postings.pmi[at] += (1 - share) * pmi[i]
    slots.mass[a] += slots.mass[p]
    slots.square[a] = square_norm(postings, holdings, a)
    return postings, holdings


@kernel()
def square_norm(postings: Postings, holdings: Holdings, p: int) -> float:
    """|M_p|^2 from its entries."""
    _, M, _, _ = gather(postings, holdings, p)
    total = 0.0
    for i in range(M.size):
        total += float(M[i]) * float(M[i])
    return total


@kernel()
def exact_norms(postings: Postings, holdings: Holdings, slots: Slots, touched: Flags) -> None:
    """|M_p|^2 from the entries, in the classes ``touched``: what was kept up row by row has rounding in it."""
    for p in range(slots.kind.size):
        if slots.kind[p] != FREE and touched[slots.cls[p]]:
            slots.square[p] = square_norm(postings, holdings, p)


@kernel(error_model="numpy")
def parts(
    postings: Postings, holdings: Holdings, slots: Slots, scalars: Reals, tau: float, p: int, informed: bool
) -> Reals:
    """How large each entry of a prototype is in its score; features ascending.

    ``informed``: with its mutual information. Truncation is without: that of a word that was seen once is so large that
    nothing would ever be dropped. A budget is with: such words are worth more than frequent ones.
    """
    _, M, R, pmi = gather(postings, holdings, p)
    scale = tau / np.sqrt(slots.square[p]) if slots.square[p] > 0 else 0.0
    size = np.empty(M.size)
    for i in range(M.size):
        correction = R[i] if informed else R[i] - pmi[i]
        size[i] = max(abs(M[i]) * scale, abs(correction) / scalars[OMEGA])
    return size


@kernel()
def largest_parts(postings: Postings, holdings: Holdings, slots: Slots, tau: float) -> Reals:
    """(slots,) the largest part of each prototype's centre, 0 without any."""
    largest = np.zeros(slots.kind.size)
    for p in range(slots.kind.size):
        if slots.kind[p] != FREE and slots.square[p] > 0:
            largest[p] = tau * np.abs(gather(postings, holdings, p)[1]).max() / np.sqrt(slots.square[p])
    return largest


@kernel()
def part_counts(
    postings: Postings, holdings: Holdings, slots: Slots, scalars: Reals, tau: float, below: Reals
) -> Longs:
    """(BUCKETS,) entries by `bucket` of their part, of those below ``below[slot]``."""
    counts = np.zeros(BUCKETS, np.int64)
    for p in range(slots.kind.size):
        if slots.kind[p] != FREE:
            for part in parts(postings, holdings, slots, scalars, tau, p, True):
                if part < below[p]:
                    counts[bucket(part)] += 1
    return counts


@kernel()
def drop_parts(
    postings: Postings, holdings: Holdings, slots: Slots, scalars: Reals, tau: float, least: Reals, informed: bool
) -> None:
    """Drops the entries whose part is below ``least[slot]``, and brings |M_p|^2 up to date."""
    for p in range(slots.kind.size):
        if slots.kind[p] == FREE or least[p] <= 0:
            continue
        size = parts(postings, holdings, slots, scalars, tau, p, informed)
        features, _, _, _ = gather(postings, holdings, p)
        kept, start = 0, holdings.start[p]
        for i in range(features.size):
            if size[i] < least[p]:
                remove(postings, features[i], p)
            else:
                holdings.feature[start + kept] = features[i]
                kept += 1
        if kept < features.size:
            holdings.length[p] = kept
            slots.square[p] = square_norm(postings, holdings, p)


@kernel()
def truncate(postings: Postings, holdings: Holdings, slots: Slots, scalars: Reals, rule: Rule, touched: Flags) -> None:
    """Drops entries whose part in the score is below ``truncation`` times the vector's largest; spares the young."""
    least = np.zeros(slots.kind.size)
    for p in range(slots.kind.size):
        old = slots.kind[p] == ACTIVE and slots.mass[p] / scalars[OMEGA] >= rule.young_mass
        if old and touched[slots.cls[p]] and holdings.length[p] > 0:
            least[p] = rule.truncation * parts(postings, holdings, slots, scalars, rule.tau, p, False).max()
    drop_parts(postings, holdings, slots, scalars, rule.tau, least, False)

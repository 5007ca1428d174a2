"""Scores of rows against all prototypes, exhaustively over the posting lists of the rows' own features.

s_p = tau * cos(x, M_p) + R_p . x / omega          s_c = max over the class's active prototypes
"""

from __future__ import annotations

import math

import numpy as np
from numba import prange

from prototide.core.compiling import kernel
from prototide.core.engines.postings import Postings
from prototide.core.engines.tables import ACTIVE, OMEGA, ROWS, Classes, Floats, Ints, Longs, Reals, Rows, Rule, Slots


@kernel(parallel=True, error_model="numpy")
def unit_rows(
    indptr: Longs, indices: Ints, data: Floats, document_frequency: Reals, scalars: Reals, idf: bool, x: Reals
) -> None:
    """x <- data times the running idf, each row scaled to length 1; rows of zeros stay zeros.

    Features beyond ``document_frequency`` are as if never seen.
    """
    for t in prange(indptr.size - 1):
        total = 0.0
        for i in range(indptr[t], indptr[t + 1]):
            value = float(data[i])
            if idf:
                j = indices[i]
                df = document_frequency[j] / scalars[OMEGA] if j < document_frequency.size else 0.0
                value *= np.log((1 + scalars[ROWS] / scalars[OMEGA]) / (1 + df)) + 1
            x[i] = value
            total += value * value
        if total > 0:
            length = np.sqrt(total)
            for i in range(indptr[t], indptr[t + 1]):
                x[i] /= length


@kernel(error_model="numpy")
def rounded(value: float, mantissa_bits: int) -> float:
    """``value`` in a format of so many mantissa bits, ties to even: 7 is bfloat16, 10 float16 (clipped)."""
    if mantissa_bits > 10 or value == 0:
        return value
    fraction, exponent = math.frexp(value)
    if mantissa_bits == 10:
        exponent = max(exponent, -13)  # float16's subnormals
        fraction = math.ldexp(value, -exponent)
    result = math.ldexp(np.rint(math.ldexp(fraction, mantissa_bits + 1)), exponent - mantissa_bits - 1)
    return min(max(result, -65504.0), 65504.0) if mantissa_bits == 10 else result


@kernel(parallel=True, error_model="numpy")
def score_slots(
    rows: Rows,
    postings: Postings,
    slots: Slots,
    scalars: Reals,
    rule: Rule,
    used: int,
    cos: Reals,
    correction: Reals,
    score: Reals,
) -> None:
    """cos(x, M_p), R_p . x / omega and s_p of each row for the slots 0..used-1; arrays of shape (rows, used)."""
    scale = np.zeros(used)
    for p in range(used):
        scale[p] = 1 / np.sqrt(slots.square[p]) if slots.square[p] > 0 else 0.0
    for t in prange(rows.indptr.size - 1):
        cos[t, :used] = 0
        correction[t, :used] = 0
        score[t, :used] = 0
        for i in range(rows.indptr[t], rows.indptr[t + 1]):
            j, value = rows.indices[i], rows.x[i]
            if j >= postings.start.size:
                continue  # a feature that no prototype has
            for k in range(postings.start[j], postings.start[j] + postings.length[j]):
                p = postings.slot[k]
                centre, push = postings.M[k] * scale[p], postings.R[k] / scalars[OMEGA]
                cos[t, p] += value * centre
                correction[t, p] += value * push
                if rule.mantissa_bits <= 10:
                    score[t, p] += value * rounded(rule.tau * centre + push, rule.mantissa_bits)
        if rule.mantissa_bits > 10:
            for p in range(used):
                score[t, p] = rule.tau * cos[t, p] + correction[t, p]


@kernel()
def best_slots(score: Reals, slots: Slots, used: int, best: Ints) -> None:
    """best[c] <- the class's active slot with the highest score, the lowest on a tie; -1 for none."""
    best[:] = -1
    for p in range(used):
        if slots.kind[p] == ACTIVE:
            c = slots.cls[p]
            if best[c] < 0 or score[p] > score[best[c]]:
                best[c] = p


@kernel(parallel=True)
def class_scores(score: Reals, slots: Slots, used: int, out: Reals) -> None:
    """out[t, c] <- score of class c, -inf where it has no active prototype."""
    for t in prange(out.shape[0]):
        best = np.empty(out.shape[1], np.int32)
        best_slots(score[t], slots, used, best)
        for c in range(out.shape[1]):
            out[t, c] = score[t, best[c]] if best[c] >= 0 else -np.inf


@kernel(parallel=True)
def rank_classes(
    score: Reals, slots: Slots, classes: Classes, used: int, top_class: Ints, top_slot: Ints, top_score: Reals
) -> None:
    """The best classes of each row, best first; equal scores: lowest slot first."""
    depth = top_class.shape[1]
    for t in prange(top_class.shape[0]):
        best = np.empty(classes.active.size, np.int32)
        best_slots(score[t], slots, used, best)
        found = 0
        for c in range(best.size):
            p = best[c]
            if p < 0 or (
                found == depth and not _before(score[t, p], p, top_score[t, depth - 1], top_slot[t, depth - 1])
            ):
                continue
            at = min(found, depth - 1)
            while at > 0 and _before(score[t, p], p, top_score[t, at - 1], top_slot[t, at - 1]):
                top_class[t, at], top_slot[t, at] = top_class[t, at - 1], top_slot[t, at - 1]
                top_score[t, at] = top_score[t, at - 1]
                at -= 1
            top_class[t, at], top_slot[t, at], top_score[t, at] = c, p, score[t, p]
            found = min(found + 1, depth)
        for at in range(found, depth):
            top_class[t, at], top_slot[t, at], top_score[t, at] = -1, -1, -np.inf


@kernel()
def _before(score: float, slot: int, other_score: float, other_slot: int) -> bool:
    return score > other_score or (score == other_score and slot < other_slot)


@kernel(parallel=True)
def steals(
    cos: Reals,
    correction: Reals,
    score: Reals,
    slots: Slots,
    classes: Classes,
    used: int,
    tau: float,
    own: Ints,
    top_class: Ints,
    top_score: Reals,
    start: Longs,
    steal_class: Ints,
    steal_score: Reals,
) -> None:
    """The trials of other classes that score above a row's best wrong class: only these can steal the row.

    With empty ``steal_class`` it counts them into start[t + 1]; else it lists them from start[t] on.
    """
    for t in prange(own.size):
        wrong = -np.inf
        for h in range(top_class.shape[1]):
            if top_class[t, h] >= 0 and top_class[t, h] != own[t]:
                wrong = top_score[t, h]
                break
        best = np.empty(classes.active.size, np.int32)
        best_slots(score[t], slots, used, best)
        found = 0
        for c in range(best.size):
            p = classes.trial[c]
            if c != own[t] and p >= 0 and best[c] >= 0:
                value = tau * cos[t, p] + correction[t, best[c]]
                if value > wrong:
                    if steal_class.size > 0:
                        steal_class[start[t] + found], steal_score[start[t] + found] = c, value
                    found += 1
        if steal_class.size == 0:
            start[t + 1] = found

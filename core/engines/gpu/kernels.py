"""Triton kernels. Each has a torch reference that computes the same: `scoring`, `learning` and `vectors`.

Names: n rows, K slots, H hot features; a row's non-zeros are indices[indptr[t]:indptr[t + 1]] and x beside them.
"""

from __future__ import annotations

import triton
import triton.language as tl

SLOT_BITS = tl.constexpr(32)
MINUS_INFINITY = tl.constexpr(float("-inf"))


@triton.jit
def unit_rows(indptr, indices, data, idf, x, BLOCK: tl.constexpr):
    """x <- data times idf, each row at length 1. One program a row. Reference: `scoring.unit_rows`."""
    t = tl.program_id(0)
    begin, end = tl.load(indptr + t), tl.load(indptr + t + 1)
    total = tl.zeros([BLOCK], tl.float32)
    for o in range(begin, end, BLOCK):
        i = o + tl.arange(0, BLOCK)
        inside = i < end
        value = tl.load(data + i, mask=inside, other=0.0) * tl.load(idf + tl.load(indices + i, mask=inside, other=0))
        total += tl.where(inside, value * value, 0.0)
    length = tl.sqrt_rn(tl.sum(total, 0))
    scale = 1.0 / tl.where(length > 0, length, 1.0)
    for o in range(begin, end, BLOCK):
        i = o + tl.arange(0, BLOCK)
        inside = i < end
        value = tl.load(data + i, mask=inside, other=0.0) * tl.load(idf + tl.load(indices + i, mask=inside, other=0))
        tl.store(x + i, value * scale, mask=inside)


@triton.jit
def pack(key, M, R, scale, slot, value, entries, omega, BLOCK: tl.constexpr):
    """value <- scale[slot] M + R / omega in the format that scores. Reference: `vectors.packed`."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < entries
    p = (tl.load(key + i, mask=inside, other=0) & 0xFFFFFFFF).to(tl.int32)
    vector = tl.load(M + i, mask=inside) * tl.load(scale + p, mask=inside)
    vector += tl.load(R + i, mask=inside) / tl.load(omega)
    tl.store(slot + i, p, mask=inside)
    tl.store(value + i, vector.to(value.dtype.element_ty), mask=inside)


@triton.jit
def fill_hot(hot, begin, slot, value, dense, width, BLOCK: tl.constexpr):
    """dense[h, slot] <- value over the entries of the h-th hot feature. Reference: `vectors.dense_of`."""
    h = tl.program_id(0)
    j = tl.load(hot + h)
    if j >= 0:
        first, last = tl.load(begin + j), tl.load(begin + j + 1)
        for o in range(first, last, BLOCK):
            i = o + tl.arange(0, BLOCK)
            inside = i < last
            p = tl.load(slot + i, mask=inside, other=0)
            tl.store(dense + h.to(tl.int64) * width + p, tl.load(value + i, mask=inside), mask=inside)


@triton.jit
def scatter_rare(
    indptr, indices, x, features, hot_of, begin, slot, value, unit, sums, X, width, X_width, H,
    SPLIT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Rare features: sums[t, slot] += x value, in whole multiples of 1 / unit, so that the order does not matter.

    Hot features: X[t, h] <- x; with SPLIT what rounding left of it in X[t, H + h]. One program a row. sums, X: zeros.
    """
    t = tl.program_id(0).to(tl.int64)
    one = tl.load(unit)
    for i in range(tl.load(indptr + t), tl.load(indptr + t + 1)):
        j, v = tl.load(indices + i), tl.load(x + i)
        if j < features:
            h = tl.load(hot_of + j)
            if h >= 0:
                high = v.to(X.dtype.element_ty)
                tl.store(X + t * X_width + h, high)
                if SPLIT:
                    tl.store(X + t * X_width + H + h, (v - high.to(tl.float32)).to(X.dtype.element_ty))
            else:
                last = tl.load(begin + j + 1)
                for o in range(tl.load(begin + j), last, BLOCK):
                    e = o + tl.arange(0, BLOCK)
                    inside = e < last
                    p = tl.load(slot + e, mask=inside, other=0)
                    part = tl.load(value + e, mask=inside, other=0.0).to(tl.float32) * (v * one)
                    whole = tl.floor(part + 0.5).to(tl.int32)
                    tl.atomic_add(sums + t * width + p, whole, mask=inside, sem="relaxed")


@triton.jit
def score_tile(
    X, dense, sums, unit, bench, best_score, best_slot, n, K, width, X_width, H, tiles,
    TOP: tl.constexpr, PRECISION: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Scores of a tile of rows x slots: the hot features' product plus the rare ones' sums.

    TOP: the tile's best slot of each row, the lowest on a tie; else the scores, where the sums were. ``bench``: 0 for
    slots that play, -inf for others. Reference: `scoring.slot_scores`.
    """
    row_tiles = tl.cdiv(n, BM)
    tile = tl.program_id(0) // row_tiles
    rows = (tl.program_id(0) % row_tiles) * BM + tl.arange(0, BM)
    slots = tile * BN + tl.arange(0, BN)
    depth = tl.arange(0, BK)
    there = rows < n
    x_at = X + rows.to(tl.int64)[:, None] * X_width + depth[None, :]
    total = tl.zeros([BM, BN], tl.float32)
    for k in range(0, X_width, BK):
        a = tl.load(x_at + k, mask=there[:, None], other=0.0)
        b = tl.load(dense + ((k % H) + depth).to(tl.int64)[:, None] * width + slots[None, :])
        total = tl.dot(a, b, total, input_precision=PRECISION)
    at = sums + rows.to(tl.int64)[:, None] * width + slots[None, :]
    total += tl.load(at, mask=there[:, None], other=0).to(tl.float32) * (1.0 / tl.load(unit))
    if TOP:
        total += tl.load(bench + slots)[None, :]
        best = tl.max(total, 1)
        lowest = tl.min(tl.where(total == best[:, None], slots[None, :], K), 1)
        tl.store(best_score + rows.to(tl.int64) * tiles + tile, best, mask=there)
        tl.store(best_slot + rows.to(tl.int64) * tiles + tile, lowest, mask=there)
    else:
        tl.store(at, total.to(tl.int32, bitcast=True), mask=there[:, None])


@triton.jit
def select(
    score, slot, cls, bench, out_score, out_slot, K, width, out_width,
    GIVEN: tl.constexpr, DEPTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The DEPTH best classes of a row among BLOCK candidates, each by its best slot; equal scores: lowest slot first.

    Candidates: the slots of a block, or with GIVEN those listed beside the scores. Reference: `scoring.rank_classes`.
    """
    t, block = tl.program_id(0).to(tl.int64), tl.program_id(1)
    i = block * BLOCK + tl.arange(0, BLOCK)
    inside = i < K
    value = tl.load(score + t * width + i, mask=inside, other=MINUS_INFINITY)
    if GIVEN:
        p = tl.load(slot + t * width + i, mask=inside, other=-1)
        value = tl.where(p >= 0, value, MINUS_INFINITY)
        p = tl.where(p >= 0, p, 0)
    else:
        p = i
        value += tl.load(bench + i, mask=inside, other=MINUS_INFINITY)
    c = tl.load(cls + p, mask=inside, other=-1)
    for d in range(DEPTH):
        best = tl.max(value, 0)
        lowest = tl.min(tl.where((value == best) & inside, p, 2147483647), 0)
        found = best > MINUS_INFINITY
        tl.store(out_score + t * out_width + block * DEPTH + d, best)
        tl.store(out_slot + t * out_width + block * DEPTH + d, tl.where(found, lowest, -1))
        winner = tl.load(cls + tl.where(found, lowest, 0))
        value = tl.where(c == winner, MINUS_INFINITY, value)


@triton.jit
def _products(pair, x, M, R, begin, end, s, S, NB: tl.constexpr, SB: tl.constexpr):
    """(M . x, R . x) of a class's slots, float64."""
    centre, push = tl.zeros([SB], tl.float64), tl.zeros([SB], tl.float64)
    for o in range(begin, end, NB):
        i = o + tl.arange(0, NB)
        inside = i < end
        value = tl.load(x + i, mask=inside, other=0.0)[:, None]
        at = tl.load(pair + i, mask=inside, other=0)[:, None] * S + s[None, :]
        there = inside[:, None] & (s < S)[None, :]
        centre += tl.sum(value * tl.load(M + at, mask=there, other=0.0), 0).to(tl.float64)
        push += tl.sum(value * tl.load(R + at, mask=there, other=0.0), 0).to(tl.float64)
    return centre, push


@triton.jit
def _attract(pair, x, M, begin, end, weight, s, S, NB: tl.constexpr, SB: tl.constexpr):
    """M += weight x; the change of |M|^2. ``weight``: (SB,) float64."""
    change = tl.zeros([SB], tl.float64)
    for o in range(begin, end, NB):
        i = o + tl.arange(0, NB)
        inside = i < end
        value = tl.load(x + i, mask=inside, other=0.0)[:, None]
        at = tl.load(pair + i, mask=inside, other=0)[:, None] * S + s[None, :]
        there = inside[:, None] & ((s < S) & (weight != 0))[None, :]
        old = tl.load(M + at, mask=there, other=0.0)
        step = (weight[None, :] * value).to(tl.float32)
        tl.store(M + at, old + step, mask=there)
        old, step = old.to(tl.float64), tl.where(there, step, 0.0).to(tl.float64)
        change += tl.sum(step * (2 * old + step), 0)
    tl.debug_barrier()
    return change


@triton.jit
def learn_classes(
    first, count, indptr, pair, x, rate, pair_first, M, R, M_before, kind_, mass_, square_, counts, wrong_,
    rival_class, rival_score, weight_, event, event_slot, own_, own_score, loss, right, step_, born_, source_,
    numbers, S,
    KERNEL: tl.constexpr, CORRECT: tl.constexpr, WRONG: tl.constexpr, SB: tl.constexpr, NB: tl.constexpr,
):  # fmt: skip
    """Every class learns its rows of a group, in order. One program a class. Reference: `learning.learn`."""
    k = tl.program_id(0)
    s = tl.arange(0, SB)
    mine = s < S
    omega, tau, margin = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
    breadth, grow_gain, grow_z = tl.load(numbers + 3), tl.load(numbers + 4), tl.load(numbers + 5)
    grow_after, trial_rows, min_share = tl.load(numbers + 6), tl.load(numbers + 7), tl.load(numbers + 8)
    correction, noise = tl.load(numbers + 9), tl.load(numbers + 10)
    kind = tl.load(kind_ + k * S + s, mask=mine, other=3)
    mass = tl.load(mass_ + k * S + s, mask=mine, other=0.0)
    square = tl.load(square_ + k * S + s, mask=mine, other=0.0)
    born, source = tl.zeros([SB], tl.int32), tl.zeros([SB], tl.int32) - 1
    active, trial = tl.load(counts + k * 8), tl.load(counts + k * 8 + 1)
    errors, wait = tl.load(counts + k * 8 + 2), tl.load(counts + k * 8 + 3)
    saved, stolen = tl.load(counts + k * 8 + 4), tl.load(counts + k * 8 + 5)
    age, limit = tl.load(counts + k * 8 + 6), tl.load(counts + k * 8 + 7)
    r0 = tl.load(first + k)
    for r in range(r0, r0 + tl.load(count + k)):
        begin, end = tl.load(indptr + r), tl.load(indptr + r + 1)
        weight, wrong = tl.load(weight_ + r), tl.load(wrong_ + r)
        power = omega * weight
        # 1. the own class, with what it has learned in this group
        centre, push = _products(pair, x, M, R, begin, end, s, S, NB, SB)
        cos = tl.where(square > 0, centre / tl.sqrt(tl.where(square > 0, square, 1.0)), 0.0)
        push = push / omega
        score = tau * cos + push
        played = tl.where(kind == 1, score, MINUS_INFINITY)
        own = tl.max(played, 0)
        best = tl.min(tl.where((kind == 1) & (played == own), s, SB), 0)
        known = best < SB
        rivalled = known & (wrong > MINUS_INFINITY)
        error = rivalled & (own < wrong)
        tl.store(own_ + r, tl.where(known, best, -1))
        tl.store(own_score + r, tl.where(known, own, 0.0))
        violated = tl.maximum(margin - (own - wrong), 0.0)
        tl.store(loss + r, tl.where(rivalled, violated, -1.0))
        tl.store(right + r, (rivalled & (own >= wrong)).to(tl.int32))
        happened = tl.where(known, 0, 1)
        free = tl.min(tl.where(kind == 0, s, SB), 0)
        # 2. an unseen class: its first prototype is this row
        best = tl.where(known, best, free)
        fresh = (s == best) & (best == free) & (happened == 1)
        kind, born = tl.where(fresh, 1, kind), tl.where(fresh, 1, born)
        cos = tl.where(fresh, 0.0, cos)
        active, trial = tl.where(known, active, 1), tl.where(known, trial, -1)
        wait, errors = tl.where(known, wait, grow_after.to(tl.int64)), tl.where(known, errors, 0)
        place = tl.where(known, 0, best)
        # 3. grow: a trial is a silent centre that must earn its place
        tried = rivalled & (limit > 1) & (trial >= 0)
        waits = rivalled & (limit > 1) & (trial < 0) & error & (active < limit)
        if tried:
            its = s == trial
            theirs = tl.sum(tl.where(its, cos, 0.0), 0)
            beside = tl.sum(tl.where(s == best, cos, 0.0), 0)
            would = tau * theirs + tl.sum(tl.where(s == best, push, 0.0), 0)
            age += 1
            saved += (error & (would > wrong)).to(tl.int64)
            if theirs > beside:
                square += _attract(pair, x, M, begin, end, tl.where(its, power, 0.0), s, S, NB, SB)
                mass += tl.where(its, power, 0.0)
            gain = saved - stolen
            enough = grow_z * tl.sqrt((saved + stolen).to(tl.float64))
            if (gain >= grow_gain) & (gain >= enough):
                inherited = tl.max(tl.where(s == best, tl.where(born > 0, source, s), -1), 0)
                for q in range(tl.load(pair_first + k), tl.load(pair_first + k + 1)):
                    tl.store(R + q * S + trial, tl.load(R + q * S + best))
                tl.debug_barrier()
                kind, source = tl.where(its, 1, kind), tl.where(its, inherited, source)
                happened, place = happened * 0 + 3, trial.to(tl.int32)
                active, errors = active + 1, errors * 0
                best = tl.where(would > own, trial.to(tl.int32), best)
                trial = trial * 0 - 1
            elif (age >= trial_rows) | (gain <= -grow_gain):
                for q in range(tl.load(pair_first + k), tl.load(pair_first + k + 1)):
                    tl.store(M + q * S + trial, 0.0)
                    tl.store(M_before + q * S + trial, 0.0)
                    tl.store(R + q * S + trial, 0.0)
                tl.debug_barrier()
                kind, born, source = tl.where(its, 0, kind), tl.where(its, 1, born), tl.where(its, -1, source)
                mass, square = tl.where(its, 0.0, mass), tl.where(its, 0.0, square)
                happened, place = happened * 0 + 4, trial.to(tl.int32)
                wait, errors = wait * 2, errors * 0
                trial = trial * 0 - 1
        if waits:
            errors += 1
            if errors >= wait:
                its = s == free
                kind, born = tl.where(its, 2, kind), tl.where(its, 1, born)
                square += _attract(pair, x, M, begin, end, tl.where(its, power, 0.0), s, S, NB, SB)
                mass += tl.where(its, power, 0.0)
                saved, stolen, age = saved * 0, stolen * 0, age * 0
                happened, place = happened * 0 + 2, free
                trial = free.to(tl.int64)
        tl.store(event + r, happened)
        tl.store(event_slot + r, place)
        # 4. attract: the K-means step, shared by closeness to the best own prototype
        difference = cos - tl.sum(tl.where(s == best, cos, 0.0), 0)
        if KERNEL == 1:
            share = tl.maximum(breadth + difference, 0.0)
        elif KERNEL == 2:
            share = tl.exp(difference / breadth)
        else:
            share = tl.where(difference == 0, 1.0, 0.0).to(tl.float64)
        share = tl.where(kind == 1, share, 0.0)
        share = share / tl.sum(share, 0)
        share = tl.where(share > min_share, share, 0.0) * power
        square += _attract(pair, x, M, begin, end, share, s, S, NB, SB)
        mass += share
        # 5. correct: lift the own prototype at once, note the pushes on the best wrong classes inside the margin
        if CORRECT:
            v = tl.zeros([NB], tl.float64)
            for o in range(begin, end, NB):
                i = o + tl.arange(0, NB)
                value = tl.load(x + i, mask=i < end, other=0.0)
                v += (tl.load(rate + i, mask=i < end, other=0.0) * value * value).to(tl.float64)
            v = tl.sum(v, 0)
            centre, push = _products(pair, x, M, R, begin, end, s, S, NB, SB)
            score = tau * centre / tl.sqrt(tl.where(square > 0, square, 1.0)) + push / omega
            own = tl.sum(tl.where(s == best, score, 0.0), 0)
            hits, total = 0, own * 0
            going = True
            for h in tl.static_range(WRONG + 1):
                theirs = tl.load(rival_score + r * (WRONG + 1) + h)
                violation = margin - (own - theirs)
                going = going & (hits < WRONG) & (theirs > MINUS_INFINITY) & (violation > 0)
                hit = going & (tl.load(rival_class + r * (WRONG + 1) + h) >= 0)
                step = correction * violation / (2 * v + noise)
                capped = tl.minimum(step * weight, tl.maximum(step, violation / (2 * v)))
                step = tl.where(hit, tl.where(weight == 1, step, capped), 0.0)
                tl.store(step_ + r * (WRONG + 1) + h, step)
                hits += hit.to(tl.int32)
                total += step
                own += step * v
            if total != 0:
                for o in range(begin, end, NB):
                    i = o + tl.arange(0, NB)
                    inside = i < end
                    at = tl.load(pair + i, mask=inside, other=0) * S + best
                    change = omega * total * tl.load(rate + i, mask=inside) * tl.load(x + i, mask=inside)
                    tl.store(R + at, tl.load(R + at, mask=inside) + change.to(tl.float32), mask=inside)
                tl.debug_barrier()
    tl.store(kind_ + k * S + s, kind, mask=mine)
    tl.store(mass_ + k * S + s, mass, mask=mine)
    tl.store(square_ + k * S + s, square, mask=mine)
    tl.store(born_ + k * S + s, born, mask=mine)
    tl.store(source_ + k * S + s, source, mask=mine)
    tl.store(counts + k * 8, active)
    tl.store(counts + k * 8 + 1, trial)
    tl.store(counts + k * 8 + 2, errors)
    tl.store(counts + k * 8 + 3, wait)
    tl.store(counts + k * 8 + 4, saved)
    tl.store(counts + k * 8 + 5, stolen)
    tl.store(counts + k * 8 + 6, age)

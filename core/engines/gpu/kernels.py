"""Triton kernels. Each has a torch reference that computes the same: `scoring`, `learning` and `vectors`.

Names: H hot features; a row's non-zeros are indices[indptr[t]:indptr[t + 1]] and x beside them.
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


@triton.jit(do_not_specialize=["entries"])
def pack(key, M, R, scale, slot, value, largest, entries, omega, BLOCK: tl.constexpr):
    """value <- scale[slot] M + R / omega in the format that scores. Reference: `vectors.packed`.

    ``largest`` becomes the bits of the largest |value|.
    """
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < entries
    p = (tl.load(key + i, mask=inside, other=0) & 0xFFFFFFFF).to(tl.int32)
    vector = tl.load(M + i, mask=inside, other=0.0) * tl.load(scale + p, mask=inside, other=0.0)
    vector += tl.load(R + i, mask=inside, other=0.0) / tl.load(omega)
    stored = vector.to(value.dtype.element_ty)
    tl.store(slot + i, p, mask=inside)
    tl.store(value + i, stored, mask=inside)
    tl.atomic_max(largest, tl.max(tl.abs(stored.to(tl.float32)), 0).to(tl.int32, bitcast=True), sem="relaxed")


@triton.jit
def fill_hot(hot, begin, slot, value, exponent, dense, width, H, COPIES: tl.constexpr, BLOCK: tl.constexpr):
    """dense[h, slot] <- value of the h-th hot feature's entries, scaled. Reference: `vectors.dense_of`."""
    h = tl.program_id(0)
    j = tl.load(hot + h)
    scale = ((14 + 127 - tl.load(exponent)) << 23).to(tl.float32, bitcast=True)
    if j >= 0:
        first, last = tl.load(begin + j), tl.load(begin + j + 1)
        for o in range(first, last, BLOCK):
            i = o + tl.arange(0, BLOCK)
            inside = i < last
            at = dense + h.to(tl.int64) * width + tl.load(slot + i, mask=inside, other=0)
            exact = tl.load(value + i, mask=inside, other=0.0).to(tl.float32) * scale
            large = exact.to(tl.float16)
            tl.store(at, large, mask=inside)
            if COPIES == 2:
                tl.store(at + H * width, large, mask=inside)
            if COPIES == 3:
                tl.store(at + H * width, (exact - large.to(tl.float32)).to(tl.float16), mask=inside)
                tl.store(at + 2 * H * width, large, mask=inside)


@triton.jit
def spread_hot(indptr, indices, x, features, hot_of, X, H, COPIES: tl.constexpr, BLOCK: tl.constexpr):
    """X[t, h] <- x of the hot features, scaled; X: zeros. One program a row. Reference: `fast_scoring.spread`.

    COPIES: 2: the large and the small half of x; 3: the large half twice, and the small half.
    """
    t = tl.program_id(0).to(tl.int64)
    end = tl.load(indptr + t + 1)
    for o in range(tl.load(indptr + t), end, BLOCK):
        i = o + tl.arange(0, BLOCK)
        j = tl.load(indices + i, mask=i < end, other=features)
        h = tl.load(hot_of + j, mask=j < features, other=-1)
        exact = tl.load(x + i, mask=h >= 0, other=0.0) * 16384.0
        large = exact.to(tl.float16)
        small = (exact - large.to(tl.float32)).to(tl.float16)
        at = X + t * COPIES * H + h
        tl.store(at, large, mask=h >= 0)
        if COPIES == 2:
            tl.store(at + H, small, mask=h >= 0)
        if COPIES == 3:
            tl.store(at + H, large, mask=h >= 0)
            tl.store(at + 2 * H, small, mask=h >= 0)


@triton.jit
def spread_rows(row, owner, begins, indptr, indices, x, rates, key, feature, value, rate, BLOCK: tl.constexpr):
    """The non-zeros of a group's rows, by class. One program a row. Reference: `group.spread_rows`."""
    r = tl.program_id(0)
    t, begin, end = tl.load(row + r), tl.load(begins + r), tl.load(begins + r + 1)
    k = tl.load(owner + r) << SLOT_BITS
    first = tl.load(indptr + t)
    for o in range(begin, end, BLOCK):
        i = o + tl.arange(0, BLOCK)
        inside = i < end
        source = first + i - begin
        j = tl.load(indices + source, mask=inside, other=0).to(tl.int64)
        tl.store(key + i, k | j, mask=inside)
        tl.store(feature + i, j, mask=inside)
        tl.store(value + i, tl.load(x + source, mask=inside, other=0.0), mask=inside)
        tl.store(rate + i, tl.load(rates + j, mask=inside, other=0.0), mask=inside)


@triton.jit(do_not_specialize=["size"])
def move_entries(key, M, R, P, added, cuts, to_key, to_M, to_R, to_P, size, PMI: tl.constexpr, BLOCK: tl.constexpr):
    """Old entries to their places among ``added`` keys, both ascending. Reference: `entries.moved`.

    ``cuts``: how many of the added come before each block's first entry, and all of them.
    """
    b = tl.program_id(0)
    i = b.to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    mine = tl.load(key + i, mask=inside, other=0)
    low = tl.zeros([BLOCK], tl.int64) + tl.load(cuts + b)
    high = tl.where(inside, tl.load(cuts + b + 1), low)
    while tl.max(high - low, 0) > 0:
        middle = (low + high) // 2
        less = (low < high) & (tl.load(added + middle, mask=low < high, other=0) < mine)
        high = tl.where(less, high, tl.where(low < high, middle, high))
        low = tl.where(less, middle + 1, low)
    tl.store(to_key + i + low, mine, mask=inside)
    tl.store(to_M + i + low, tl.load(M + i, mask=inside), mask=inside)
    tl.store(to_R + i + low, tl.load(R + i, mask=inside), mask=inside)
    if PMI:
        tl.store(to_P + i + low, tl.load(P + i, mask=inside), mask=inside)


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


@triton.jit(do_not_specialize=["size"])
def put_back(
    at, key, slot, active, born, M, R, M_before, to_M, to_R, out_key, by, new, size, S, BLOCK: tl.constexpr
):  # fmt: skip
    """to[at] <- M, R of slots that were not born in this group, and what changed. Reference: `learning.put_back`."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    where = tl.load(at + i, mask=inside, other=-1)
    pair = tl.load(key + i // S, mask=inside, other=0)
    s = (pair >> SLOT_BITS) * S + i % S
    stays = tl.load(born + s, mask=inside, other=1) == 0
    known = (where >= 0) & stays
    centre, push = tl.load(M + i, mask=inside, other=0.0), tl.load(R + i, mask=inside, other=0.0)
    tl.store(to_M + where, centre, mask=known)
    tl.store(to_R + where, push, mask=known)
    p = tl.load(slot + s, mask=inside, other=0)
    tl.store(out_key + i, ((pair & 0xFFFFFFFF) << SLOT_BITS) | tl.where(p >= 0, p, 0), mask=inside)
    played = stays & (tl.load(active + s, mask=inside, other=0) != 0)
    tl.store(by + i, tl.where(played, centre - tl.load(M_before + i, mask=inside, other=0.0), 0.0), mask=inside)
    tl.store(new + i, (known == 0) & ((centre != 0) | (push != 0)), mask=inside)


@triton.jit(do_not_specialize=["size"])
def add_squares(value, key, unit, total, size, BLOCK: tl.constexpr):
    """total[slot] += value^2, in multiples of 1 / unit[slot]. Reference: `sums.squares_by`."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = i < size
    p = tl.load(key + i, mask=inside, other=0) & 0xFFFFFFFF
    square = tl.load(value + i, mask=inside, other=0.0).to(tl.float64)
    whole = (square * square * tl.load(unit + p, mask=inside, other=0.0)).to(tl.int64)
    tl.atomic_add(total + p, whole, mask=inside & (whole != 0), sem="relaxed")


@triton.jit
def count_rows(
    indptr, feature, x, power, step, unit, total, features,
    CORRECT: tl.constexpr, WRONG: tl.constexpr, PMI: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """total (3, features) += what a row counts, in multiples of 1 / unit. One program a row.

    Reference: `learning.count`.
    """
    r = tl.program_id(0)
    weight = tl.load(power + r) * tl.load(unit)
    hits = tl.load(power + r).to(tl.int32) * 0
    if CORRECT:
        for h in tl.static_range(WRONG + 1):
            hits += (tl.load(step + r * (WRONG + 1) + h) != 0).to(tl.int32)
    end = tl.load(indptr + r + 1)
    for o in range(tl.load(indptr + r), end, BLOCK):
        i = o + tl.arange(0, BLOCK)
        inside = i < end
        j = tl.load(feature + i, mask=inside, other=0)
        value = tl.load(x + i, mask=inside, other=0.0).to(tl.float64)
        tl.atomic_add(total + j, (weight + 0 * value).to(tl.int64), mask=inside, sem="relaxed")
        if hits > 0:
            tl.atomic_add(
                total + features + j, (weight * hits * value * value).to(tl.int64), mask=inside, sem="relaxed"
            )
        if PMI:
            tl.atomic_add(total + 2 * features + j, (weight * tl.abs(value)).to(tl.int64), mask=inside, sem="relaxed")

"""Entries of the index by their part in their prototype's score: the largest, how many are small, the small dropped.

A part is max(tau |M_j| / |M|, |R_j| / omega), see `maintenance.parts`. Features are shared out in shards, feature j to
shard j modulo their number; what each shard finds is put together by the caller, in the same order for any threads.
"""

from __future__ import annotations

from numba import prange

from prototide.core.compiling import kernel
from prototide.core.engines.budget import bucket
from prototide.core.engines.index import TILE, Index
from prototide.core.engines.tables import Floats, Ints, Pool, Reals


@kernel(parallel=True)
def largest_parts(index: Index, scale: Reals, omega: float, shards: Reals) -> None:
    """shards[s, p] <- largest part of an entry of slot p in its score, over the features of shard s.

    A part is without mutual information, as truncation measures it; see `maintenance.parts`.
    """
    for s in prange(shards.shape[0]):
        _largest_in_shard(index, scale, omega, shards[s], s, shards.shape[0])


@kernel()
def _largest_in_shard(index: Index, scale: Reals, omega: float, largest: Reals, s: int, shards: int) -> None:
    corrected, informed = index.R.size > 0, index.pmi.size > 0
    for j in range(s, index.hot.size, shards):
        h = index.hot[j]
        if h >= 0:
            for first in range(0, largest.size, TILE):
                tile, here = first // TILE, slice(first, min(first + TILE, largest.size))
                R = index.hot_R[tile, h] if corrected else index.R
                pmi = index.hot_pmi[tile, h] if informed else index.pmi
                _largest_in_row(index.hot_M[tile, h], R, pmi, scale[here], omega, largest[here])
        for i in range(index.start[j], index.start[j] + index.length[j]):
            p = index.slot[i]
            part = abs(index.M[i]) * scale[p]
            if corrected:
                part = max(part, abs(index.R[i] - index.pmi[i] if informed else index.R[i]) / omega)
            largest[p] = max(largest[p], part)


@kernel()
def _largest_in_row(M: Floats, R: Floats, pmi: Floats, scale: Reals, omega: float, largest: Reals) -> None:
    """Of one hot feature in the slots of a tile; ``R`` and ``pmi`` may be empty."""
    for q in range(largest.size):
        part = abs(M[q]) * scale[q]
        largest[q] = part if part > largest[q] else largest[q]
    if pmi.size > 0:
        for q in range(largest.size):
            part = abs(R[q] - pmi[q]) / omega
            largest[q] = part if part > largest[q] else largest[q]
    elif R.size > 0:
        for q in range(largest.size):
            part = abs(R[q]) / omega
            largest[q] = part if part > largest[q] else largest[q]


@kernel(parallel=True)
def part_counts(index: Index, below: Reals, scale: Reals, omega: float, shards: Pool) -> None:
    """shards[s, b] += listed entries of bucket b, of those whose part is below below[slot], in shard s's features."""
    corrected = index.R.size > 0
    for s in prange(shards.shape[0]):
        for j in range(s, index.hot.size, shards.shape[0]):
            for i in range(index.start[j], index.start[j] + index.length[j]):
                p = index.slot[i]
                part = abs(index.M[i]) * scale[p]
                if corrected:
                    part = max(part, abs(index.R[i]) / omega)
                if part < below[p]:
                    shards[s, bucket(part)] += 1


@kernel(parallel=True)
def drop_entries(index: Index, least: Reals, scale: Reals, omega: float, informed: bool, kept: Reals) -> None:
    """Of slots with least[p] > 0, drops the entries whose part in the score is below it (inf: all of them).

    ``informed``: whether the mutual information counts; see `maintenance.parts`.
    kept[s, p] <- |M_p|^2 of what is left, in the features of shard s, where least[p] > 0.
    """
    for s in prange(kept.shape[0]):
        _drop_in_shard(index, least, scale, omega, informed, kept, s)


@kernel()
def _drop_in_shard(index: Index, least: Reals, scale: Reals, omega: float, informed: bool, kept: Reals, s: int) -> None:
    corrected, kept_apart = index.R.size > 0, index.pmi.size > 0
    for j in range(s, index.hot.size, kept.shape[0]):
        h = index.hot[j]
        if h >= 0:
            for first in range(0, least.size, TILE):
                tile, here = first // TILE, slice(first, min(first + TILE, least.size))
                R = index.hot_R[tile, h] if corrected else index.R
                pmi = index.hot_pmi[tile, h] if kept_apart else index.pmi
                _drop_in_row(index.hot_M[tile, h], R, pmi, least[here], scale[here], omega, informed, kept[s][here])
            continue
        begin, end = index.start[j], index.start[j] + index.length[j]
        R = index.R[begin:end] if corrected else index.R
        pmi = index.pmi[begin:end] if kept_apart else index.pmi
        index.length[j] = _drop_in_list(
            index.slot[begin:end], index.M[begin:end], R, pmi, least, scale, omega, informed, kept[s]
        )


@kernel()
def _drop_in_row(
    M: Floats, R: Floats, pmi: Floats, least: Reals, scale: Reals, omega: float, informed: bool, kept: Reals
) -> None:
    """Of one hot feature in the slots of a tile; ``R`` and ``pmi`` may be empty. Without branches: vectorised."""
    nothing = M.dtype.type(0)
    if R.size == 0:
        for q in range(least.size):
            m = M[q] if abs(M[q]) * scale[q] >= least[q] else nothing
            M[q] = m
            kept[q] += float(m) * float(m) if least[q] > 0 else 0.0
        return
    for q in range(least.size):
        correction = R[q] - (pmi[q] if pmi.size > 0 and not informed else nothing)
        stays = max(abs(M[q]) * scale[q], abs(correction) / omega) >= least[q]
        m = M[q] if stays else nothing
        M[q], R[q] = m, R[q] if stays else nothing
        if pmi.size > 0:
            pmi[q] = pmi[q] if stays else nothing
        kept[q] += float(m) * float(m) if least[q] > 0 else 0.0


@kernel()
def _drop_in_list(
    slot: Ints, M: Floats, R: Floats, pmi: Floats, least: Reals, scale: Reals, omega: float, informed: bool, kept: Reals
) -> int:
    """How many entries are left; ``R`` and ``pmi`` may be empty."""
    left, corrected, apart = 0, R.size > 0, pmi.size > 0 and not informed
    for i in range(slot.size):
        p = slot[i]
        part = abs(M[i]) * scale[p]
        if corrected:
            part = max(part, abs(R[i] - pmi[i] if apart else R[i]) / omega)
        if part < least[p]:
            continue
        kept[p] += float(M[i]) * float(M[i])  # also of slots that nobody asks for: cheaper than to look
        if left < i:
            slot[left], M[left] = p, M[i]
            if R.size > 0:
                R[left] = R[i]
            if pmi.size > 0:
                pmi[left] = pmi[i]
        left += 1
    return left

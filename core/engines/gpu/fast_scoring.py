"""Scoring on a device: rows in chunks, each chunk's scores in a buffer that is reused.

hot features    a dense product, on the tensor cores (torch's)
rare features   lists, added up in shared memory, where the best classes are found as well (`rank_rows`)
"""

from __future__ import annotations

import torch
from torch import Tensor

from prototide.core.engines.gpu import kernels, scoring
from prototide.core.engines.gpu.entries import Entries, keys_of
from prototide.core.engines.gpu.rank_rows import parts, rank_rows
from prototide.core.engines.gpu.rows import DeviceRows
from prototide.core.engines.gpu.scoring import Frozen, Roster
from prototide.core.engines.gpu.sums import ranges, sums_by, wide_type
from prototide.core.engines.gpu.vector_layout import ROWS_AT_ONCE, SLOTS_AT_ONCE
from prototide.core.engines.gpu.vectors import Vectors
from prototide.core.engines.tables import Rule


def rows_at_once(vectors: Vectors, rows: int, all_scores: bool) -> int:
    """Rows of one call; ``all_scores``: there is room for the scores of all of them."""
    return max(1, min(SLOTS_AT_ONCE // vectors.cls.numel() if all_scores else ROWS_AT_ONCE, rows))


def scores(rows: DeviceRows, x: Tensor, vectors: Vectors) -> Tensor:
    """(n, width) scores of all slots."""
    found = x.new_empty(rows.count, vectors.cls.numel())
    _rank(rows, x, vectors, 0, torch.arange(rows.count, dtype=torch.int32, device=x.device), found)
    return found


def rank(rows: DeviceRows, x: Tensor, vectors: Vectors, depth: int) -> tuple[Tensor, Tensor, Tensor]:
    """Classes, slots and scores of the best classes, each (n, depth)."""
    nothing = torch.full((rows.count,), -1, dtype=torch.int32, device=x.device)
    return _rank(rows, x, vectors, depth, nothing, x.new_empty(0, vectors.cls.numel()))


def _rank(
    rows: DeviceRows, x: Tensor, vectors: Vectors, depth: int, kept: Tensor, into: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """`rank`; ``kept``: (n,) int32, which row of ``into`` (m, width) takes a row's scores of all slots, -1 for none."""
    n, width = rows.count, vectors.cls.numel()
    columns = depth * parts(width)[0]
    score = torch.empty(n, columns, dtype=torch.float32, device=x.device)
    slot = torch.empty(n, columns, dtype=torch.int32, device=x.device)
    X, size = spread(rows, x, vectors), max(1, SLOTS_AT_ONCE // width)
    product = x.new_empty(min(size, n), width)
    for first in range(0, n, size):
        hot = product[: min(size, n - first)]
        multiply(X[first : first + size], vectors.dense, hot)
        rank_rows(rows, x, first, hot, vectors, depth, kept, into, score, slot)
    if columns > depth:
        score, slot = _best_of_parts(score, slot, vectors.cls, depth)
    return torch.where(slot >= 0, vectors.cls[slot.clamp(min=0).long()], -1), slot, score


def spread(rows: DeviceRows, x: Tensor, vectors: Vectors) -> Tensor:
    """(n, COPIES H) float16: the hot features of the rows, as `Vectors.dense` asks for them."""
    copies = vectors.dense.shape[0] // vectors.hot.numel()
    X = torch.zeros(rows.count, vectors.dense.shape[0], dtype=torch.float16, device=x.device)
    if rows.count:
        kernels.spread_hot[(rows.count,)](
            rows.indptr, rows.indices, x, vectors.hot_of.numel(), vectors.hot_of, X, vectors.hot.numel(),
            COPIES=copies, BLOCK=128, num_warps=1,
        )  # fmt: skip
    return X


def multiply(X: Tensor, dense: Tensor, product: Tensor) -> None:
    """product <- X dense: float16 factors, float32 sums."""
    if X.is_cuda:
        torch.mm(X, dense, out_dtype=torch.float32, out=product)
    else:
        torch.mm(X.float(), dense.float(), out=product)


def _best_of_parts(score: Tensor, slot: Tensor, cls: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """The ``depth`` best classes among candidates (n, m) that may name a class several times; ties: lowest slot."""
    candidate = torch.where(slot >= 0, cls[slot.clamp(min=0).long()], -1)
    best, which = [], []
    for _ in range(depth):
        best.append(score.amax(1))
        lowest = torch.where((score == best[-1][:, None]) & (slot >= 0), slot, 2**31 - 1).amin(1)
        which.append(torch.where(best[-1] > -torch.inf, lowest, -1))
        won = cls[which[-1].clamp(min=0).long()]
        score = torch.where(candidate == won[:, None], -torch.inf, score)
    return torch.stack(best, 1), torch.stack(which, 1)


def freeze(
    rows: DeviceRows, x: Tensor, vectors: Vectors, entries: Entries, roster: Roster, omega: float, rule: Rule,
    own: Tensor, asked: Tensor, depth: int,
) -> Frozen:  # fmt: skip
    """What `scoring.freeze` gives. All scores of a row are kept if it is asked for, or if there are trials."""
    if roster.trials.numel():
        asked_at, kept = asked, torch.arange(rows.count, dtype=torch.int32, device=x.device)
    else:
        asked_at = torch.arange(asked.numel(), dtype=torch.int32, device=x.device)
        kept = torch.full((rows.count,), -1, dtype=torch.int32, device=x.device).index_copy_(0, asked, asked_at)
    score = x.new_empty(rows.count if roster.trials.numel() else asked.numel(), vectors.cls.numel())
    top_class, slot, best = _rank(rows, x, vectors, depth, kept, score)
    best = best.to(wide_type(x.device))
    probed, _ = scoring.best_slots(score[asked_at.long()][:, : roster.used], roster)
    stolen = _steals(rows, x, score, entries, roster, omega, rule, own, scoring.best_wrong(top_class, best, own))
    return Frozen(top_class, slot, best, probed, *stolen)


def _steals(
    rows: DeviceRows, x: Tensor, score: Tensor, entries: Entries, roster: Roster, omega: float, rule: Rule,
    own: Tensor, wrong: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Rows, classes and scores of trials above a row's best wrong class: tau cos(x, M_trial) + R_best . x / omega."""
    if not roster.trials.numel():
        return own.new_zeros(0), own.new_zeros(0), wrong.new_zeros(0)
    cls = roster.cls[roster.trials]
    alone = score[:, roster.trials].to(wrong.dtype)  # a trial has no corrections
    played = torch.nn.functional.pad(score[:, : roster.used], (0, 1), value=-torch.inf)[:, roster.members[cls]]
    beside = played.amax(2)
    # R_best . x / omega = s_best - tau cos, and cos >= 0 where nothing is negative
    negative = (x < 0).any() | (entries.M < 0).any()
    most = beside + torch.where(negative, rule.tau, 1e-3)
    perhaps = (alone + most > wrong[:, None]) & (own[:, None] != cls) & (beside > -torch.inf)
    row, trial = torch.nonzero(perhaps, as_tuple=True)
    members = roster.members[cls[trial]]
    best = torch.where(played[row, trial] == beside[row, trial, None], members, roster.used).amin(1)
    value = alone[row, trial] + _corrections(rows, x, entries, row, best, omega)
    stolen = value > wrong[row]
    return row[stolen], cls[trial][stolen], value[stolen]


def _corrections(rows: DeviceRows, x: Tensor, entries: Entries, row: Tensor, slot: Tensor, omega: float) -> Tensor:
    """(pairs,) R_slot . x_row / omega."""
    which, at = ranges(rows.indptr[row], rows.indptr[row + 1] - rows.indptr[row])
    position = entries.find(keys_of(rows.indices[at], slot[which]))
    R = torch.where(position >= 0, entries.R[position.clamp(min=0)], 0.0)
    return sums_by(x[at] * R, which, row.numel()) / omega

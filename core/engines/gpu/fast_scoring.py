"""Scoring by the kernels: rows in chunks, each chunk's scores in one buffer that is reused.

rare features   lists are added up in the buffer, in whole numbers (`kernels.scatter_rare`)
hot features    a dense product on top, and the best slot of each tile at once (`kernels.score_tile`)
the best        of the tiles, or with deeper rankings of the buffer's scores (`kernels.select`)
"""

from __future__ import annotations

import math

import torch
import triton
from torch import Tensor

from prototide.core.engines.gpu import kernels, scoring
from prototide.core.engines.gpu.entries import Entries, keys_of
from prototide.core.engines.gpu.rows import DeviceRows
from prototide.core.engines.gpu.scoring import Frozen, Roster
from prototide.core.engines.gpu.sums import ranges, sums_by
from prototide.core.engines.gpu.vector_layout import SLOTS_AT_ONCE
from prototide.core.engines.gpu.vectors import Vectors
from prototide.core.engines.tables import Rule

BM, BN, BK = 128, 256, 64
SELECT_BLOCK = 4096


class FastScorer:
    """Scores rows against `Vectors`. ``buffer_scores``: size of the buffer."""

    def __init__(self, device: torch.device, buffer_scores: int = SLOTS_AT_ONCE) -> None:
        self.device, self._size = device, buffer_scores
        self._buffer = torch.zeros(0, dtype=torch.int32, device=device)

    @property
    def nbytes(self) -> int:
        """Bytes of the buffer."""
        return 4 * self._buffer.numel()

    def chunk(self, vectors: Vectors, rows: int) -> int:
        """Rows whose scores fit into the buffer, in whole tiles."""
        return max(BM, min(self._size // vectors.bench.numel() // BM * BM, triton.cdiv(rows, BM) * BM))

    def scores(self, rows: DeviceRows, x: Tensor, vectors: Vectors) -> Tensor:
        """(n, width) scores of all slots, a view of the buffer: good until the next call."""
        self._run(rows, x, vectors, top=False)
        return self._view(rows.count, vectors).view(torch.float32)

    def best(self, rows: DeviceRows, x: Tensor, vectors: Vectors) -> tuple[Tensor, Tensor]:
        """(n,) score and slot of the best active slot, the lowest on a tie; -inf and -1 for none."""
        score, slot = self._run(rows, x, vectors, top=True)
        best = score.amax(1)
        lowest = torch.where(score == best[:, None], slot, 2**31 - 1).amin(1)
        return best, torch.where(best > -torch.inf, lowest, -1)

    def rank(self, rows: DeviceRows, x: Tensor, vectors: Vectors, depth: int) -> tuple[Tensor, Tensor, Tensor]:
        """Classes, slots and scores of the best classes, each (n, depth)."""
        if depth == 1:
            score, slot = (found[:, None] for found in self.best(rows, x, vectors))
        else:
            score, slot = self._select(self.scores(rows, x, vectors), None, vectors, depth)
        return torch.where(slot >= 0, vectors.cls[slot.clamp(min=0).long()], -1), slot, score

    def _view(self, n: int, vectors: Vectors) -> Tensor:
        width = vectors.bench.numel()
        if self._buffer.numel() < n * width:
            self._buffer = torch.empty(n * width, dtype=torch.int32, device=self.device)
        return self._buffer[: n * width].view(n, width)

    def _run(self, rows: DeviceRows, x: Tensor, vectors: Vectors, *, top: bool) -> tuple[Tensor, Tensor]:
        n, width, hot = rows.count, vectors.bench.numel(), vectors.hot.numel()
        stored = vectors.dense.dtype
        split = stored in (torch.bfloat16, torch.float16)
        sums = self._view(n, vectors).zero_()
        X = torch.zeros(n, hot * (2 if split else 1), dtype=stored, device=self.device)
        longest = math.sqrt(int((rows.ends[1:] - rows.ends[:-1]).max(initial=1)))
        unit = torch.exp2(29 - torch.ceil(torch.log2((vectors.largest * longest).clamp(min=1e-30))))
        tiles = width // BN
        score = torch.empty((n, tiles) if top else (0, 0), dtype=torch.float32, device=self.device)
        slot = torch.empty_like(score, dtype=torch.int32)
        if not n:
            return score, slot
        kernels.scatter_rare[(n,)](
            rows.indptr, rows.indices, x, vectors.hot_of.numel(), vectors.hot_of, vectors.begin, vectors.slot,
            vectors.value, unit, sums, X, width, X.shape[1], hot, SPLIT=split, BLOCK=128, num_warps=1,
        )  # fmt: skip
        kernels.score_tile[(triton.cdiv(n, BM) * tiles,)](
            X, vectors.dense, sums, unit, vectors.bench, score, slot, n, width, width, X.shape[1], hot, tiles,
            TOP=top, PRECISION="tf32x3" if stored == torch.float32 else "ieee", BM=BM, BN=BN,
            BK=32 if stored == torch.float32 else BK, num_warps=8, num_stages=3,
        )  # fmt: skip
        return score, slot

    def _select(self, score: Tensor, slot: Tensor | None, vectors: Vectors, depth: int) -> tuple[Tensor, Tensor]:
        """Score and slot of the ``depth`` best classes of each row, in as many rounds as one block asks for."""
        n, K = score.shape
        blocks = max(1, triton.cdiv(K, SELECT_BLOCK))
        best = torch.empty(n, blocks * depth, dtype=torch.float32, device=self.device)
        which = torch.empty(n, blocks * depth, dtype=torch.int32, device=self.device)
        if n:
            block = min(SELECT_BLOCK, triton.next_power_of_2(K))
            kernels.select[(n, blocks)](
                score, which if slot is None else slot, vectors.cls, vectors.bench, best, which, K, score.stride(0),
                blocks * depth, GIVEN=slot is not None, DEPTH=depth, BLOCK=block,
            )  # fmt: skip
        return (best, which) if blocks == 1 else self._select(best, which, vectors, depth)

    def freeze(
        self, rows: DeviceRows, x: Tensor, vectors: Vectors, entries: Entries, roster: Roster, omega: float, rule: Rule,
        own: Tensor, asked: Tensor, depth: int,
    ) -> Frozen:  # fmt: skip
        """What `scoring.freeze` gives."""
        score = self.scores(rows, x, vectors)
        best, slot = self._select(score, None, vectors, depth)
        top_class = torch.where(slot >= 0, vectors.cls[slot.clamp(min=0).long()], -1).long()
        best = best.to(own.device, torch.float64)
        probed, _ = scoring.best_slots(score[asked][:, : roster.used].double(), roster)
        stolen = _steals(rows, x, score, entries, roster, omega, rule, own, scoring.best_wrong(top_class, best, own))
        return Frozen(top_class, slot.long(), best, probed, *stolen)


def _steals(
    rows: DeviceRows, x: Tensor, score: Tensor, entries: Entries, roster: Roster, omega: float, rule: Rule,
    own: Tensor, wrong: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Rows, classes and scores of trials above a row's best wrong class: tau cos(x, M_trial) + R_best . x / omega."""
    none = own.new_zeros(0)
    if not roster.trials.numel():
        return none, none, none.to(wrong.dtype)
    cls = roster.cls[roster.trials]
    alone = score[:, roster.trials].to(wrong.dtype)  # a trial has no corrections
    played = torch.nn.functional.pad(score[:, : roster.used], (0, 1), value=-torch.inf)[:, roster.members[cls]]
    beside = played.amax(2)
    # R_best . x / omega = s_best - tau cos, and cos >= 0 where nothing is negative
    negative = (x.amin() < 0) | (entries.M.amin() < 0)
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

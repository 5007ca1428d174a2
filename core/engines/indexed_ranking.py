"""How the indexed engine scores: every slot of a small model, the slots that can matter of a large one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prototide.core.engines import half, index_scoring
from prototide.core.engines.answers import Ranking
from prototide.core.engines.index import TILE
from prototide.core.engines.indexed_keeping import IndexedKeeping
from prototide.core.engines.shortlist import shortlist
from prototide.core.engines.sketch import refresh
from prototide.core.engines.tables import ACTIVE, Frozen, Ints, Longs, Reals, Rows
from prototide.core.engines.threads import threads_for
from prototide.core.rows import CsrRows

BLOCK_ROWS = 256
BLOCK_BYTES = 48 << 20  # sums of a block of rows for all slots
STEAL_ROOM = 16
EXHAUSTIVE_SLOTS = 4 * TILE  # models of so many slots have all of them scored
SURVIVORS = 256  # slots that a shortlist completes before it gives up on a row


class IndexedRanking(IndexedKeeping):
    """Scores over the index."""

    def rank(self, rows: CsrRows, depth: int) -> tuple[Ranking, Longs]:
        """The ``depth`` best classes of each row, and the id of its winning prototype (-1 for none)."""
        ranking = Ranking.empty(rows.count, depth)
        with threads_for(rows.count, self._slots.kind.size):
            self._digest(self._unit(rows), np.full(rows.count, -1, np.int32), ranking, None)
        return ranking, self._winners(ranking)

    def class_scores(self, rows: CsrRows) -> Reals:
        """Score of every class for every row, (n, classes); -inf for a class without prototypes."""
        with threads_for(rows.count, self._slots.kind.size):
            return self._class_scores(self._unit(rows))

    def _class_scores(self, rows: Rows) -> Reals:
        out = np.empty((rows.indptr.size - 1, self._classes.active.size))
        used = self._used()
        for first, last, *sums in self._sums(rows, used):
            index_scoring.class_scores(
                *sums, self._classes_of(used), self._scales()[:used], 1 / self.omega, out[first:last]
            )
        return out

    def _sums(self, rows: Rows, used: int) -> Iterator[tuple[int, int, NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """(first row, last row + 1, M . x, R . x, V . x) of blocks of rows for all slots; the arrays are reused."""
        count = rows.indptr.size - 1
        corrected, halved = self._index.R.size > 0, self.rule.mantissa_bits <= half.FLOAT16_BITS
        size = max(1, min(count, BLOCK_ROWS, BLOCK_BYTES // (8 * max(1, used))))
        sum_M = np.empty((size, used), self._dtype)
        sum_R = np.empty((size, used if corrected else 0), self._dtype)
        sum_V = np.empty((size, used if halved else 0), self._dtype)
        for first in range(0, count, size):
            last = min(first + size, count)
            block = Rows(rows.indptr[first : last + 1], rows.indices, rows.x)
            M, R, V = sum_M[: last - first], sum_R[: last - first], sum_V[: last - first]
            index_scoring.accumulate(*block, *self._lists(), *self._weights(used), M, R, V)
            yield first, last, M, R, V

    def _lists(self) -> tuple[NDArray[Any], ...]:
        """What scores: the index without the room of its lists and the mutual information."""
        return *self._index[:2], *self._index[3:9]

    def _weights(self, used: int) -> tuple[NDArray[Any], float, int]:
        """(tau / |M| of each slot, weight of R, bits of the mantissa): how entries score."""
        return self._scales()[:used], 1 / self.omega, self.rule.mantissa_bits

    def _classes_of(self, used: int) -> Ints:
        """Class of each slot, -1 unless its prototype is active."""
        return np.where(self._slots.kind[:used] == ACTIVE, self._slots.cls[:used], -1).astype(np.int32)

    def _digest(self, rows: Rows, own: Ints, top: Ranking, products: tuple[Reals, Reals] | None) -> Frozen:
        """Scores all slots: fills ``top`` and, where asked, the rows' products with their own class's prototypes."""
        used, count = self._used(), own.size
        none = np.zeros((0, 0))
        own_M, own_R = products if products is not None else (none, none)
        trials = np.zeros(0, np.int32)
        if products is not None and self.rule_grows:
            trials = np.flatnonzero(self._classes.trial >= 0).astype(np.int32)
        steal_count = np.zeros(count, np.int64)
        find = self._digest_few if used > EXHAUSTIVE_SLOTS else self._digest_all
        room = min(STEAL_ROOM, trials.size)
        while True:
            steal_class, steal_score = np.empty((count, room), np.int32), np.empty((count, room))
            find(rows, own, top, own_M, own_R, trials, used, (steal_count, steal_class, steal_score))
            if int(steal_count.max(initial=0)) <= room:
                break
            room = int(steal_count.max())
        if not room:
            return _without_thieves(top)
        listed = np.arange(room) < steal_count[:, None]
        start = np.append(0, np.cumsum(steal_count))
        return Frozen(top.classes, top.slots, top.scores, start, steal_class[listed], steal_score[listed])

    def _digest_all(
        self, rows: Rows, own: Ints, top: Ranking, own_M: Reals, own_R: Reals, trials: Ints, used: int,
        steals: tuple[Longs, Ints, Reals],
    ) -> None:  # fmt: skip
        """Every slot's score, block after block of rows."""
        cls, scale, per_omega = self._classes_of(used), self._scales()[:used], 1 / self.omega
        for first, last, *sums in self._sums(rows, used):
            part = top.part(first, last)
            index_scoring.digest(
                *sums, own[first:last], cls, self._slots.next, self._classes.first, self._classes.trial, scale,
                per_omega, trials, part.classes, part.slots, part.scores, own_M[first:last], own_R[first:last],
                *(array[first:last] for array in steals),
            )  # fmt: skip

    def _digest_few(
        self, rows: Rows, own: Ints, top: Ranking, own_M: Reals, own_R: Reals, trials: Ints, used: int,
        steals: tuple[Longs, Ints, Reals],
    ) -> None:  # fmt: skip
        """The scores that matter."""
        self._refresh_sketch()
        shortlist(
            *rows, own, *self._lists(), *self._sketch[:4], self._slots.kind, self._slots.cls, self._slots.next,
            self._classes.first, self._classes.trial, trials, *self._weights(used), SURVIVORS,
            top.classes, top.slots, top.scores, own_M, own_R, *steals,
        )  # fmt: skip

    def _refresh_sketch(self) -> None:
        stale = np.flatnonzero(self._sketch.stale[: self._slots.kind.size]).astype(np.int32)
        if stale.size:
            runs = np.append(0, np.flatnonzero(np.diff(stale // TILE)) + 1)
            refresh(
                *self._sketch[:4], stale, np.append(runs, stale.size).astype(np.int32), self._index.hot_M,
                self._index.hot_R, self._hot_rows,
            )  # fmt: skip
            self._sketch.stale[stale] = False


def _without_thieves(top: Ranking) -> Frozen:
    start = np.zeros(top.scores.shape[0] + 1, np.int64)
    return Frozen(top.classes, top.slots, top.scores, start, np.zeros(0, np.int32), np.zeros(0))

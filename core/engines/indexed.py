"""The indexed engine: the rule of the plain engine, on all cores, without a look at what cannot matter.

Five stages for a group of rows: score all slots (`index_scoring`), every class decides for its own rows in parallel
(`deciding`), slots are given and the changes collected (`settling`), the changes are applied feature by feature in
parallel (`index`), what is shared by all classes is brought up to date. No stage passes over prototypes x features.
Results do not depend on the number of threads, and equal those of the plain engine up to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Literal

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from prototide.core.engines import budget, index_scoring, learning, settling, sole
from prototide.core.engines import index as entries
from prototide.core.engines.changing import Information, Operations, apply, plan, summed
from prototide.core.engines.deciding import DEAD
from prototide.core.engines.index import TILE, empty_index
from prototide.core.engines.movement import Journey
from prototide.core.engines.plain import PlainEngine, Ranking, _Probed
from prototide.core.engines.shortlist import shortlist
from prototide.core.engines.sketch import empty_sketch, grown_sketch, refresh
from prototide.core.engines.tables import (
    ACTIVE,
    FREE,
    MERGED,
    OMEGA,
    PRUNED,
    Frozen,
    Ints,
    Longs,
    Reals,
    Rows,
    Rule,
    Slots,
    Trace,
    grown,
)  # fmt: skip
from prototide.core.engines.threads import threads_for
from prototide.core.rows import CsrRows

BLOCK_ROWS = 256
BLOCK_BYTES = 48 << 20  # sums of a block of rows for all slots
STEAL_ROOM = 16
TINY = 1e-30  # below, nothing in a float32 is told from 0
SHARDS = 8  # of features, in passes that sum over them: fixed, so that no sum depends on the threads
HOT_SHARE, HOT_LEAST = 12, 64  # a feature is hot above used slots / HOT_SHARE entries, and above HOT_LEAST
EXHAUSTIVE_SLOTS = 4 * TILE  # models of so many slots have all of them scored
SURVIVORS = 256  # slots that a shortlist completes before it gives up on a row


class IndexedEngine(PlainEngine):
    """The plain engine's state and steps on an `index.Index`."""

    def __init__(self, rule: Rule, dtype: type[np.floating[Any]]) -> None:
        super().__init__(rule, dtype)
        self._dtype = dtype
        self._index = empty_index(0, rule.correction > 0, rule.pmi > 0, dtype)
        self._pool_end = 0
        self._hot_rows = 0
        self._rank = np.zeros(0, np.int32)  # of each slot among its class's prototypes
        self._begun = np.zeros(0)  # scratch of settle_group
        self._dots = np.zeros(0)  # M_a . M_b of each class's prototypes, by rank
        self._dots_first, self._dots_size = np.zeros(0, np.int64), np.zeros(0, np.int32)
        self._count = np.zeros(0, np.int32)  # scratch of group_items
        self._sketch = empty_sketch(0, 0, rule.correction > 0)
        self._scale, self._tau = np.zeros(0, dtype), rule.tau  # for `_scales`
        self._end = 0  # no slot from here on is occupied
        self._limits = np.zeros(0, np.int64)  # last given to make_room
        self.rule_grows = False  # whether any class may have more than one prototype

    name = "indexed"

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        tables = (self._index, self._sketch, self._slots, self._classes, self._features, (self._dots, self._count))
        return sum(array.nbytes for table in tables for array in table)

    # --- scores ---

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
        for first, last, M, R in self._sums(rows, used):
            index_scoring.class_scores(
                M, R, self._classes_of(used), self._scales()[:used], 1 / self.omega, out[first:last]
            )
        return out

    def _sums(self, rows: Rows, used: int) -> Iterator[tuple[int, int, NDArray[Any], NDArray[Any]]]:
        """(first row, last row + 1, M . x, R . x) of blocks of rows for all slots; the arrays are reused."""
        count, corrected = rows.indptr.size - 1, self._index.R.size > 0
        size = max(1, min(count, BLOCK_ROWS, BLOCK_BYTES // (8 * max(1, used))))
        sum_M = np.empty((size, used), self._dtype)
        sum_R = np.empty((size, used) if corrected else (0, 0), self._dtype)
        for first in range(0, count, size):
            last = min(first + size, count)
            block = Rows(rows.indptr[first : last + 1], rows.indices, rows.x)
            M, R = sum_M[: last - first], sum_R[: last - first] if corrected else sum_R
            index_scoring.accumulate(*block, *self._lists(), used, M, R)
            yield first, last, M, R

    def _lists(self) -> tuple[NDArray[Any], ...]:
        """What scores: the index without the room of its lists and the mutual information."""
        return *self._index[:2], *self._index[3:9]

    def _classes_of(self, used: int) -> Ints:
        """Class of each slot, -1 unless its prototype is active."""
        return np.where(self._slots.kind[:used] == ACTIVE, self._slots.cls[:used], -1).astype(np.int32)

    def _scales(self) -> NDArray[np.floating[Any]]:
        """tau / |M| of each slot."""
        if self._tau != self.rule.tau:  # a parameter has changed
            self._tau = self.rule.tau
            self._rescale_slots()
        return self._scale

    def _rescale_slots(self, which: Ints | None = None) -> None:
        """Keeps ``_scale`` up after the length of some slots' centres has changed; None: of any."""
        which = np.arange(self._scale.size, dtype=np.int32) if which is None else which
        index_scoring.rescale(self._slots.square, which, self._tau, TINY, self._scale)

    def _used(self) -> int:
        while self._end > 0 and self._slots.kind[self._end - 1] == FREE:
            self._end -= 1
        return self._end

    def _begin_sketch(self) -> None:
        tiles, rows, _ = self._index.hot_M.shape
        self._sketch = empty_sketch(rows, tiles * TILE, self._index.R.size > 0)

    def _refresh_sketch(self) -> None:
        stale = np.flatnonzero(self._sketch.stale[: self._slots.kind.size]).astype(np.int32)
        if stale.size:
            runs = np.append(0, np.flatnonzero(np.diff(stale // TILE)) + 1)
            refresh(
                *self._sketch[:4], stale, np.append(runs, stale.size).astype(np.int32), self._index.hot_M,
                self._index.hot_R, self._hot_rows,
            )  # fmt: skip
            self._sketch.stale[stale] = False

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
        for first, last, M, R in self._sums(rows, used):
            part = top.part(first, last)
            index_scoring.digest(
                M, R, own[first:last], cls, self._slots.next, self._classes.first, self._classes.trial, scale,
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
            self._classes.first, self._classes.trial, trials, self._scales()[:used], 1 / self.omega, SURVIVORS,
            top.classes, top.slots, top.scores, own_M, own_R, *steals,
        )  # fmt: skip

    # --- learning ---

    def make_room(self, limits: Longs, width: int) -> None:
        """Room for one class per entry of ``limits`` (its most prototypes) and for ``width`` features."""
        known, rule, index = self.n_features, self.rule, self._index
        unset = rule.correction > 0 and index.R.size == 0, rule.pmi > 0 and index.pmi.size == 0
        if limits is self._limits and width <= known and not any(unset):
            return
        self._limits, self.rule_grows = limits, bool((limits > 1).any())
        super().make_room(limits, width)
        if self.n_features > known:
            start, length, room = (
                np.concatenate([a, np.zeros(self.n_features - known, a.dtype)]) for a in (self._index.start,
                self._index.length, self._index.room)
            )  # fmt: skip
            hot = np.append(self._index.hot, np.full(self.n_features - known, -1, np.int32))
            self._index = self._index._replace(start=start, length=length, room=room, hot=hot)
            self._count = np.zeros(self.n_features, np.int32)
        if unset[0]:
            self._index = self._index._replace(R=np.zeros_like(self._index.M), hot_R=np.zeros_like(self._index.hot_M))
            self._sketch = self._sketch._replace(R=np.zeros_like(self._sketch.M))
        if unset[1]:
            self._index = self._index._replace(
                pmi=np.zeros_like(self._index.M), hot_pmi=np.zeros_like(self._index.hot_M)
            )
        wanted = np.maximum(self._dots_size_wanted(), 0)
        if wanted.size != self._dots_size.size or (wanted > self._dots_size).any():
            self._lay_out_dots(wanted)

    def _dots_size_wanted(self) -> Ints:
        size = (self._classes.limit + 2).astype(np.int32)
        size[: self._dots_size.size] = np.maximum(size[: self._dots_size.size], self._dots_size)
        return size

    def _lay_out_dots(self, size: Ints) -> None:
        first = np.cumsum(size.astype(np.int64) ** 2) - size.astype(np.int64) ** 2
        old, old_first, old_size = self._dots, self._dots_first, self._dots_size
        self._dots = np.zeros(int((size.astype(np.int64) ** 2).sum()))
        if old_size.size and np.array_equal(size[: old_size.size], old_size):
            self._dots[: old.size] = old
        else:
            for c in range(old_size.size):
                block = old[old_first[c] : old_first[c] + old_size[c] ** 2].reshape(old_size[c], -1)
                self._dots[first[c] : first[c] + size[c] ** 2].reshape(size[c], -1)[: old_size[c], : old_size[c]] = (
                    block
                )
        self._dots_first, self._dots_size = first, size

    def _reserve_slots(self, births: int) -> None:
        if self._used() + births <= self._slots.kind.size:
            return
        missing = births - int(np.count_nonzero(self._slots.kind == FREE))
        if missing > 0:
            size = self._slots.kind.size + max(missing, self._slots.kind.size // 4)
            self._slots = Slots(*grown(self._slots, size, (0, FREE, 0, 0, -1, 0, -1)))
            more = size - self._rank.size
            self._rank = np.append(self._rank, np.zeros(more, np.int32))
            self._begun = np.empty(size)
            self._scale = np.append(self._scale, np.zeros(more, self._dtype))
            self._grow_hot(self._index.hot_M.shape[1])

    def _grow_hot(self, rows: int) -> None:
        """Room for so many hot features, and for all slots."""
        tiles = -(-self._slots.kind.size // TILE)
        have = self._index.hot_M.shape
        if tiles <= have[0] and rows <= have[1]:
            return
        shape = (max(tiles, have[0]), max(rows, have[1]), TILE)

        def larger(old: NDArray[Any]) -> NDArray[Any]:
            new = np.zeros(shape, old.dtype)
            new[: have[0], : have[1]] = old
            return new

        self._replace_hot(larger)
        self._sketch = grown_sketch(self._sketch, shape[1], shape[0] * TILE, self._index.R.size > 0)

    def _replace_hot(self, change: Callable[[NDArray[Any]], NDArray[Any]]) -> None:
        index = self._index
        self._index = index._replace(
            hot_M=change(index.hot_M),
            hot_R=change(index.hot_R) if index.R.size else index.hot_R,
            hot_pmi=change(index.hot_pmi) if index.pmi.size else index.hot_pmi,
        )

    def seed(self, rows: CsrRows, own_class: Ints, weight: Reals) -> None:
        """Makes each row a prototype of its class."""
        self._reserve_slots(rows.count)
        unit = self._unit(rows)
        slots, p = np.empty(rows.count, np.int32), -1
        for t in range(rows.count):
            c = int(own_class[t])
            taken = {int(self._rank[p]) for p in self._chain(c)}
            p = learning.occupy(self._slots, self._classes, self._counters, c, ACTIVE, p + 1)
            slots[t] = p
            self._rank[p] = min(set(range(len(taken) + 1)) - taken)
            self._end = max(self._end, p + 1)
            self._slots.mass[p], self._slots.square[p] = weight[t], weight[t] ** 2
            self._classes.active[c] += 1
            self._classes.wait[c] = self.rule.grow_after
            self._counters[2] += 1
        order = np.argsort(slots, kind="stable")
        self._change(
            unit,
            np.zeros(unit.x.size),
            Operations(order.astype(np.int32), slots[order], weight[order], np.zeros(rows.count)),
        )
        self._rescale_slots(slots)
        self._recompute_dots()
        self._heat()

    def _chain(self, c: int) -> list[int]:
        chain, p = [], int(self._classes.first[c])
        while p >= 0:
            chain.append(p)
            p = int(self._slots.next[p])
        return chain

    def _learn_group(
        self, rows: CsrRows, own_class: Ints, weight: Reals, top: Ranking, asked: Longs, journey: Journey,
        answers: bool,
    ) -> _Probed:  # fmt: skip
        """1. score against the model as it is; 2. each class decides for its rows; 3. changes; 4. what is shared."""
        learned = np.flatnonzero(own_class >= 0)
        self._scalars[OMEGA] *= self.rule.decay**learned.size
        unit = self._unit(rows)
        probed = self._class_scores(_taken(unit, asked)) if asked.size else np.zeros((0, self._classes.active.size))
        if not answers and self._only_attracts():
            return self._attract(unit, own_class, weight, probed, journey)
        longest = self._class_sizes()[1] + 1
        products = np.zeros((rows.count, longest)), np.zeros((rows.count, longest))
        frozen = self._digest(unit, own_class, top, products)
        winners = self._winners(top)
        if not learned.size:
            return _Probed(winners, probed)
        self._reserve_slots(learned.size)
        settled = settling.settle_group(
            unit, own_class, weight, frozen, *products, self._slots, self._rank, self._begun, self._classes,
            self._features, self._scalars, self._counters, self.rule, self._dots, self._dots_first, self._dots_size,
            self._most_active(learned.size) + 1,
        )  # fmt: skip
        self._end = max(self._end, settled.end)
        if settled.heir.size and self._index.R.size:
            self._inherit(settled.heir, settled.source)
        self._change(unit, settled.rate, settled.operations, self.rule.pmi)
        self._rescale_slots(settled.operations.slot)
        self._touched[settled.present] = True
        journey.add(unit, Trace(np.array([settled.slot.size]), *settled[3:9]))
        return _Probed(winners, probed, (settled.own_slot, self._ids(settled.own_slot), settled.own_score))

    def _only_attracts(self) -> bool:
        """Whether a class's only prototype takes all of its rows and nothing is learned from other classes."""
        alone = self._class_sizes()[1] <= 1 and not (self._classes.trial >= 0).any()
        return self.rule.correction == 0 and not self.rule_grows and alone

    def _attract(self, unit: Rows, own_class: Ints, weight: Reals, probed: Reals, journey: Journey) -> _Probed:
        """A group of which nothing need be scored."""
        count = own_class.size
        learned = int(np.count_nonzero(own_class >= 0))
        self._reserve_slots(learned)
        operations, before = sole.attract_rows(
            unit, own_class, weight, self._slots, self._rank, self._classes, self._features, self._scalars,
            self._counters, self.rule,
        )  # fmt: skip
        self._end = max(self._end, int(operations.slot.max(initial=-1)) + 1)
        gained = self._change(unit, np.zeros(0), operations, lengths=True)
        sole.lengthen(operations.slot, gained, self._slots, self._rank, self._dots, self._dots_first, self._dots_size)
        self._rescale_slots(operations.slot)
        self._touched[own_class[own_class >= 0]] = True
        none = np.full(count, -1, np.int32), np.zeros(count)
        attracted = operations.row.astype(np.int64), operations.slot, operations.m, before
        journey.add(unit, Trace(np.array([learned]), *attracted, *none))
        return _Probed(np.full(count, -1), probed)

    def _inherit(self, target: Ints, source: Ints) -> None:
        """Promoted prototypes get the correction of the one that they stand beside, as it was at the group's start."""
        feature, slot, _, R, pmi = self._entries_of(np.unique(source))
        held = [np.flatnonzero((slot == s) & ((R != 0) | (pmi != 0))) for s in source]
        self._add(feature, [(at, p, R[at]) for at, p in zip(held, target, strict=True)], "R")
        if self._index.pmi.size:
            self._add(feature, [(at, p, pmi[at]) for at, p in zip(held, target, strict=True)], "pmi")

    def _add(
        self, feature: Ints, changes: list[tuple[Longs, int, NDArray[Any]]], onto: Literal["M", "R", "pmi"]
    ) -> None:
        """Adds values to single slots: (positions in ``feature``, slot, values) each. pmi: where there are entries."""
        if not changes:
            return
        indptr = np.append(0, np.cumsum([at.size for at, _, _ in changes]))
        indices = np.concatenate([feature[at] for at, _, _ in changes])
        rows = Rows(indptr, indices, np.concatenate([values for _, _, values in changes]).astype(np.float64))
        slot = np.array([p for _, p, _ in changes], np.int32)
        order = np.argsort(slot, kind="stable")
        one, zero = np.ones(slot.size), np.zeros(slot.size)
        to_M, to_R = (one, zero) if onto == "M" else (zero, one)
        operations = Operations(order.astype(np.int32), slot[order], to_M, to_R)
        index = self._index
        if onto == "pmi":
            self._index = index._replace(R=index.pmi, hot_R=index.hot_pmi)
        self._change(rows, np.ones(indices.size), operations)
        if onto == "pmi":
            self._index = self._index._replace(R=index.R, hot_R=index.hot_R)
            self._sketch.stale[slot] = True  # it took them for corrections

    def _change(
        self, rows: Rows, rate: Reals, operations: Operations, pmi: float = 0.0, lengths: bool = False
    ) -> Reals:
        """Applies operations to the entries, making room where they need it. ``pmi``: its weight, 0: leave it.

        Returns what each adds to |M|^2 of its slot if ``lengths`` asks for it.
        """
        if not operations.row.size:
            return np.zeros(0)
        items, planned, end = plan(self._index, rows, rate, operations, self._count, self._pool_end)
        self._reserve_pool(end)
        self._pool_end = end
        information = Information(self._slots.kind, self._slots.mass, self._features.total, self._scalars, pmi)
        gain = np.empty(items.x.size if lengths else 0)
        apply(self._index, items, operations, planned, information, self._sketch, gain)
        return summed(items, gain, operations.row.size if lengths else 0)

    def _reserve_pool(self, size: int) -> None:
        have = self._index.slot.size
        if size <= have:
            return
        size += size // 8
        for array in (self._index.slot, self._index.M, self._index.R, self._index.pmi):
            if array.size or array is self._index.slot:
                array.resize(size, refcheck=False)  # realloc: no second copy of a large pool

    # --- maintenance ---

    def _maintain(self) -> None:
        rule, slots, classes = self.rule, self._slots, self._classes
        omega = float(self._scalars[OMEGA])
        for p in self._light():
            settling.bury(slots, classes, p)
            classes.active[slots.cls[p]] -= 1
            self._counters[PRUNED] += 1
        for c in np.flatnonzero((classes.active == 0) & (classes.trial >= 0)):  # forgotten classes
            settling.bury(slots, classes, classes.trial[c])
            classes.trial[c] = -1
        if rule.merge_distance > 0:
            self._merge()
        old = (slots.kind == ACTIVE) & self._touched[slots.cls] & (slots.mass / omega >= rule.young_mass)
        least = np.zeros(slots.kind.size)
        if old.any():  # what was kept up row by row has rounding in it: |M|^2 anew, with what is too small dropped
            least[old] = TINY
            if rule.truncation > 0:
                least[old] = np.maximum(rule.truncation * self._largest_parts(self._index)[old], TINY)
        self._drop(least)
        self._touched[:] = False
        self._keep_to_budget()
        self._heat()
        if self._pool_end > 1.4 * self._index.length.sum() + 4096:
            self._compact()
        if 0 < rule.memory_budget < self.nbytes:
            self._trim()

    def _held_features(self) -> Ints:
        return np.flatnonzero((self._index.length > 0) | (self._index.hot >= 0)).astype(np.int32)

    def _largest_parts(self, index: entries.Index) -> Reals:
        """(slots,) largest part of an entry in its prototype's score."""
        largest = np.zeros((SHARDS, self._slots.kind.size))
        entries.largest_parts(index, self._held_features(), self._scales().astype(np.float64), self.omega, largest)
        return largest.max(axis=0)

    def _drop(self, least: Reals, informed: bool = False) -> None:
        """Drops the entries whose part is below ``least[slot]`` and those of dead slots; |M|^2 anew where it is > 0.

        ``informed``: whether the mutual information counts.
        """
        slots = self._slots
        changed = least > 0
        least = np.where(slots.kind == DEAD, np.inf, least)
        if not least.any():
            return
        kept = np.zeros((SHARDS, slots.kind.size))
        entries.drop_entries(
            self._index, self._held_features(), least, self._scales().astype(np.float64), self.omega, informed, kept
        )
        slots.square[changed] = kept.sum(axis=0)[changed]
        diagonal = self._dots_first[slots.cls] + self._rank * (self._dots_size[slots.cls] + 1)
        self._dots[diagonal[changed]] = slots.square[changed]
        self._sketch.stale[: least.size] |= least > 0
        settling.free_dead(slots)
        self._rescale_slots()

    def _light(self) -> list[int]:
        """Active prototypes below ``min_weight``, the lightest first, the last of a class only to forget it."""
        slots, light, least = self._slots, [], 0 if self.rule.forget_classes else 1
        candidates = np.flatnonzero((slots.kind == ACTIVE) & (slots.mass / self._scalars[OMEGA] < self.rule.min_weight))
        left = self._classes.active.copy()
        for p in candidates[np.argsort(slots.mass[candidates], kind="stable")].tolist():
            if left[slots.cls[p]] > least:
                left[slots.cls[p]] -= 1
                light.append(p)
        return light

    def _rescale(self) -> None:
        omega = float(self._scalars[OMEGA])
        with np.errstate(all="ignore"):  # the pool's holes may hold anything
            for array in (*self._index[5:], self._slots.mass, *self._features):
                array /= omega
        self._slots.square[:] /= omega * omega
        self._dots /= omega * omega
        self._scalars[1] /= omega
        self._scalars[3] /= omega
        self._scalars[OMEGA] = 1.0
        self._rescale_slots()
        self._sketch.step_M[:] /= omega
        self._sketch.step_R[:] /= omega

    def _pairs(self, classes: Longs) -> tuple[Ints, Reals]:
        """Class and 1 - cosine of each pair of active prototypes of one class."""
        left, right = [], []
        for c in classes[self._classes.active[classes] > 1].tolist():
            chain = [p for p in self._chain(c) if self._slots.kind[p] == ACTIVE]
            for i, a in enumerate(chain):
                left += [a] * (len(chain) - i - 1)
                right += chain[i + 1 :]
        one, other = np.array(left, np.int32), np.array(right, np.int32)
        of = self._slots.cls[one]
        dots = self._dots[self._dots_first[of] + self._rank[one] * self._dots_size[of] + self._rank[other]]
        return of, 1 - dots / np.sqrt(self._slots.square[one] * self._slots.square[other])

    def _merge(self) -> None:
        """Joins prototypes of one class: M and mass add, R is the mass-weighted mean."""
        rule = self.rule
        relative = rule.relative_merge or rule.merge_percentile >= 0
        of, distance = self._pairs(np.arange(self._touched.size) if relative else np.flatnonzero(self._touched))
        threshold = rule.merge_distance * (float(distance.mean()) if rule.relative_merge and distance.size else 1.0)
        if rule.merge_percentile >= 0 and distance.size:
            threshold = min(threshold, float(np.quantile(distance, rule.merge_percentile)))
        self._merge_classes(np.unique(of[distance <= threshold]), threshold)

    def _merge_classes(self, classes: NDArray[Any], threshold: float) -> None:
        absorbed: dict[int, list[tuple[int, float]]] = {}
        for c in classes.tolist():
            absorbed |= self._merge_class(c, threshold)
        if not absorbed:
            return
        self._rescale_slots()
        involved = [*absorbed, *(b for others in absorbed.values() for b, _ in others)]
        feature, slot, M, R, pmi = self._entries_of(np.array(involved))
        by_slot = np.argsort(slot, kind="stable")
        bounds = np.searchsorted(slot[by_slot], np.arange(self._slots.kind.size + 1))
        centres, corrections, information = [], [], []
        for a, others in absorbed.items():
            weight = 1.0  # of R_a as it was
            for b, share in reversed(others):
                at = by_slot[bounds[b] : bounds[b + 1]]
                centres.append((at, a, M[at]))
                corrections.append((at, a, weight * (1 - share) * R[at]))
                information.append((at, a, weight * (1 - share) * pmi[at]))
                weight *= share
            at = by_slot[bounds[a] : bounds[a + 1]]
            corrections.append((at, a, (weight - 1) * R[at]))
            information.append((at, a, (weight - 1) * pmi[at]))
        self._add(feature, centres, "M")
        if self._index.R.size:
            self._add(feature, corrections, "R")
        if self._index.pmi.size:
            self._add(feature, information, "pmi")

    def _merge_class(self, c: int, threshold: float) -> dict[int, list[tuple[int, float]]]:
        """Decides which prototypes of a class join, in all but their entries: a -> (b, a's share of the mass) each."""
        slots = self._slots
        chain = [p for p in self._chain(c) if slots.kind[p] == ACTIVE]
        size, first = int(self._dots_size[c]), int(self._dots_first[c])
        dots = self._dots[first : first + size * size].reshape(size, size)
        absorbed: dict[int, list[tuple[int, float]]] = {}
        for i, a in enumerate(chain):
            for b in chain[i + 1 :]:
                if slots.kind[a] != ACTIVE or slots.kind[b] != ACTIVE:
                    continue
                ra, rb = self._rank[a], self._rank[b]
                if 1 - dots[ra, rb] / np.sqrt(dots[ra, ra] * dots[rb, rb]) > threshold:
                    continue
                absorbed.setdefault(a, []).append((b, float(slots.mass[a] / (slots.mass[a] + slots.mass[b]))))
                slots.mass[a] += slots.mass[b]
                both = dots[ra, ra] + 2 * dots[ra, rb] + dots[rb, rb]
                dots[ra] += dots[rb]
                dots[:, ra] += dots[:, rb]
                dots[ra, ra] = slots.square[a] = both
                settling.bury(slots, self._classes, b)
                self._classes.active[c] -= 1
                self._counters[MERGED] += 1
        return absorbed

    def _entries_of(self, which: NDArray[Any]) -> tuple[Ints, Ints, NDArray[Any], NDArray[Any], NDArray[Any]]:
        """(features ascending, slots, M, R, pmi) of all entries of some slots."""
        flag = np.zeros(self._slots.kind.size, np.bool_)
        flag[which] = True
        count = entries.count_flagged(self._index, flag)
        count[self._index.hot >= 0] = flag.sum()
        first = np.append(0, np.cumsum(count, dtype=np.int64))
        total = int(first[-1])
        found = (
            np.empty(total, np.int32),
            np.empty(total, np.int32),
            np.empty(total, self._dtype),
            np.empty(total, self._dtype),
            np.empty(total, self._dtype),
        )
        entries.collect(self._index, flag, first, flag.size, *found)
        return found

    def _heat(self) -> None:
        """Features that many prototypes have become hot."""
        most = max(HOT_LEAST, self._used() // HOT_SHARE)
        features = np.flatnonzero(self._index.length > most).astype(np.int32)
        if self.rule.memory_budget and features.size:  # the longest lists, as many as fit
            features = features[np.argsort(-self._index.length[features], kind="stable")]
            more = self._hot_row_bytes() - self._index.length[features] * self.entry_bytes
            left = budget.AFTERWARDS * budget.content_limit(self.rule.memory_budget) - self.packed_bytes
            features = np.sort(features[np.cumsum(np.maximum(more, 0)) <= left])
        self._make_hot(features)

    def _make_hot(self, features: Ints) -> None:
        if features.size:
            if self._hot_rows + features.size > self._index.hot_M.shape[1]:
                self._grow_hot(max(self._hot_rows + features.size, self._hot_rows + self._hot_rows // 2))
            entries.heat(self._index, features, self._hot_rows, self._sketch)
            self._hot_rows += features.size

    def _compact(self) -> None:
        """Takes the holes out of the pool; every list gets a little room."""
        room = entries.packed_room(self._index.length)
        start = np.cumsum(room) - room
        end = int(room.sum())
        moved = {}
        for name in ("slot", "M", "R", "pmi"):
            old = getattr(self._index, name)
            if old.size or name == "slot":
                moved[name] = np.empty(end + end // 8 + 4096, old.dtype)
                entries.move_lists(self._index, start, old, moved[name])
        self._index = self._index._replace(start=start, room=room.astype(np.int32), **moved)
        self._pool_end = end

    # --- memory budget: what `budget.keep_within` asks for ---

    @property
    def packed_bytes(self) -> int:
        """Bytes of the content when nothing but the lists' room is held in reserve."""
        index = self._index
        exact = sum(array.nbytes for array in (*index[:4], self._dots, self._count))
        listed = int(entries.packed_room(index.length).sum()) * self._listed_bytes()
        return exact + listed + self._hot_rows * self._hot_row_bytes() + self._tables_bytes(self._used())

    @property
    def entry_bytes(self) -> float:
        """Bytes that a listed entry takes, with its share of the list's room."""
        return 1.125 * self._listed_bytes()

    def _listed_bytes(self) -> int:
        return 4 + self._index.M.itemsize * (1 + (self._index.R.size > 0) + (self._index.pmi.size > 0))

    def _hot_row_bytes(self) -> int:
        in_sketch = 1 + (self._index.R.size > 0)
        return -(-self._used() // TILE) * TILE * (self._listed_bytes() - 4 + in_sketch)

    def pack_hot(self) -> None:
        """Hot features that take more as rows than as lists become rare again."""
        hot = np.flatnonzero(self._index.hot >= 0).astype(np.int32)
        count = entries.hot_counts(self._index, self._hot_rows)[self._index.hot[hot]]
        cold = count * self.entry_bytes < self._hot_row_bytes()
        if not cold.any():
            return
        room = entries.packed_room(count[cold])
        start = self._pool_end + np.cumsum(room) - room
        self._pool_end += int(room.sum())
        self._reserve_pool(self._pool_end)
        entries.cool(self._index, hot[cold], start)
        self._index.room[hot[cold]] = room
        rows = self._index.hot[hot[~cold]]
        self._index.hot[hot[~cold]] = np.arange(rows.size)
        self._replace_hot(lambda hot: hot.take(rows, axis=1))
        self._hot_rows = rows.size
        self._begin_sketch()

    def merge_within(self, distance: float) -> None:
        """Merges all prototypes of one class that are so near."""
        of, between = self._pairs(np.arange(self._touched.size))
        self._merge_classes(np.unique(of[between <= distance]), distance)
        self._drop(np.zeros(self._slots.kind.size))

    def largest_parts(self) -> Reals:
        """(slots,) largest part of each prototype's centre, 0 for empty slots."""
        centres = self._index._replace(R=self._index.R[:0], pmi=self._index.pmi[:0])
        return np.where(self._slots.kind % DEAD > 0, self._largest_parts(centres), 0.0)

    def part_counts(self, below: Reals) -> Longs:
        """(BUCKETS,) listed entries by bucket of their part, of those below ``below[slot]``."""
        shards = np.zeros((SHARDS, budget.BUCKETS), np.int64)
        entries.part_counts(
            self._index, self._held_features(), below, self._scales().astype(np.float64), self.omega, shards
        )
        return np.asarray(shards.sum(axis=0))

    def drop_parts(self, least: Reals) -> None:
        """Drops the entries whose part is below ``least[slot]``."""
        self._drop(least, informed=True)
        self._recompute_dots()

    def _trim(self) -> None:
        """Gives back what is held in reserve."""
        self._compact()
        used = self._hot_rows
        self._replace_hot(lambda hot: hot[:, :used].copy())
        self._begin_sketch()

    # --- state ---

    def state(self) -> dict[str, NDArray[Any]]:
        """The whole model as named arrays, copies: the plain engine's, and what only this one keeps (``index.*``)."""
        used = self._used()
        flag = (self._slots.kind[:used] % DEAD) != 0
        count = entries.count_kept(self._index, flag)
        first = np.append(0, np.cumsum(count, dtype=np.int64))
        total, dtype = int(first[-1]), self._dtype
        slot, M, R, pmi = (np.empty(total, each) for each in (np.int32, dtype, dtype, dtype))
        entries.collect_kept(self._index, flag, first, slot, M, R, pmi)
        arrays = self._tables_state(used) | {
            "entry.count": count,
            "entry.slot": slot,
            "entry.centre": M,
            "entry.correction": R,
            "entry.pmi": pmi,
        }
        return arrays | {
            "index.hot": np.flatnonzero(self._index.hot >= 0),
            "index.rank": self._rank[:used].copy(),
            "index.dots": self._dots.copy(),
            "index.dots_size": self._dots_size.copy(),
        }

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Becomes the model whose `state` this is, the plain engine's or this one's."""
        self._restore_tables(arrays)
        self._end = self._slots.kind.size
        self._scale, self._begun = np.zeros(self._end, self._dtype), np.empty(self._end)
        self._rescale_slots()
        self._limits, self.rule_grows = np.zeros(0, np.int64), bool((self._classes.limit > 1).any())
        slots, features = self._slots.kind.size, self.n_features
        corrected = self.rule.correction > 0 or bool(arrays["entry.correction"].any())
        informed = self.rule.pmi > 0 or bool(arrays["entry.pmi"].any())
        self._index = empty_index(features, corrected, informed, self._dtype)
        self._count = np.zeros(features, np.int32)
        count = arrays["entry.count"]
        self._index.length[:] = self._index.room[:] = count
        self._index.start[:] = np.cumsum(count, dtype=np.int64) - count
        self._pool_end = int(count.sum())
        self._reserve_pool(self._pool_end)
        self._index.slot[: self._pool_end] = arrays["entry.slot"]
        self._index.M[: self._pool_end] = arrays["entry.centre"]
        if self._index.R.size:
            self._index.R[: self._pool_end] = arrays["entry.correction"]
        if self._index.pmi.size:
            self._index.pmi[: self._pool_end] = arrays["entry.pmi"]
        self._hot_rows = 0
        self._begin_sketch()
        self._grow_hot(0)
        if "index.rank" in arrays:
            self._rank, self._dots = np.array(arrays["index.rank"]), np.array(arrays["index.dots"])
            size = self._dots_size = np.array(arrays["index.dots_size"])
            self._dots_first = np.cumsum(size.astype(np.int64) ** 2) - size.astype(np.int64) ** 2
            self._make_hot(arrays["index.hot"].astype(np.int32))
        else:
            self._rank = np.zeros(slots, np.int32)
            for c in range(self._classes.active.size):
                for place, p in enumerate(self._chain(c)):
                    self._rank[p] = place
            self._lay_out_dots((np.maximum(self._classes.limit, self._classes.active) + 2).astype(np.int32))
            self._recompute_dots()
            self._heat()

    def _entries(self, slot: int) -> tuple[Ints, Reals, Reals]:
        feature, _, M, R, _ = self._entries_of(np.array([slot]))
        kept = (M != 0) | (R != 0)
        return feature[kept], M[kept].astype(np.float64), R[kept].astype(np.float64)

    def _recompute_dots(self) -> None:
        """M_a . M_b of all classes from the entries; for models that do not bring them."""
        slots = self._slots
        alive = np.flatnonzero((slots.kind == ACTIVE) | (slots.kind == 2))
        self._dots[:] = 0
        c = slots.cls[alive]
        self._dots[self._dots_first[c] + self._rank[alive] * (self._dots_size[c] + 1)] = slots.square[alive]
        several = alive[np.bincount(c, minlength=self._classes.active.size)[c] > 1]
        if not several.size:
            return
        feature, slot, M, _, _ = self._entries_of(several)
        matrix = sp.csr_matrix((M.astype(np.float64), (slot, feature)), shape=(slots.kind.size, self.n_features))
        for klass in np.unique(slots.cls[several]).tolist():
            chain = self._chain(klass)
            products = (matrix[chain] @ matrix[chain].T).toarray()
            np.fill_diagonal(products, slots.square[chain])
            size, first = int(self._dots_size[klass]), int(self._dots_first[klass])
            self._dots[first : first + size * size].reshape(size, size)[
                np.ix_(self._rank[chain], self._rank[chain])
            ] = products


def _without_thieves(top: Ranking) -> Frozen:
    start = np.zeros(top.scores.shape[0] + 1, np.int64)
    return Frozen(top.classes, top.slots, top.scores, start, np.zeros(0, np.int32), np.zeros(0))


def _taken(rows: Rows, which: Longs) -> Rows:
    """Some rows, in that order."""
    lengths = np.diff(rows.indptr)[which]
    indptr = np.append(0, np.cumsum(lengths))
    entry = np.arange(indptr[-1]) - np.repeat(indptr[:-1], lengths) + np.repeat(rows.indptr[which], lengths)
    return Rows(indptr, rows.indices[entry], rows.x[entry])

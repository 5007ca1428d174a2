"""What the indexed engine does every 1,024 learned rows: prune, merge, truncate, keep to the memory budget, tidy up."""

from __future__ import annotations

import numpy as np

from prototide.core.engines import budget, dropping, merging, settling
from prototide.core.engines.deciding import DEAD
from prototide.core.engines.dots import Dots
from prototide.core.engines.index import TILE, Index, cool, heat, hot_counts, move_lists, packed_room, reserve_pool
from prototide.core.engines.indexed_keeping import TINY, IndexedKeeping
from prototide.core.engines.tables import (
    ACTIVE,
    LOSS_ROWS,
    OMEGA,
    PRUNED,
    ROWS,
    Classes,
    Ints,
    Longs,
    Reals,
    Slots,
)  # fmt: skip

SHARDS = 8  # of features, in passes that sum over them: fixed, so that no sum depends on the threads
HOT_SHARE, HOT_LEAST = 12, 64  # a feature is hot above used slots / HOT_SHARE entries, and above HOT_LEAST


class IndexedUpkeep(IndexedKeeping):
    """Maintenance of the index."""

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
        self._dots.values[:] /= omega * omega
        self._scalars[ROWS] /= omega
        self._scalars[LOSS_ROWS] /= omega
        self._scalars[OMEGA] = 1.0
        self._rescale_slots()
        self._sketch.step_M[:] /= omega
        self._sketch.step_R[:] /= omega

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
        dropping.drop_entries(self._index, least, self._scales().astype(np.float64), self.omega, informed, kept)
        slots.square[changed] = kept.sum(axis=0)[changed]
        rank = self._rank[changed]
        self._dots.values[self._dots.places(slots.cls[changed], rank, rank)] = slots.square[changed]
        self._sketch.stale[: least.size] |= least > 0
        settling.free_dead(slots)
        self._rescale_slots()

    def _largest_parts(self, index: Index) -> Reals:
        """(slots,) largest part of an entry in its prototype's score."""
        largest = np.zeros((SHARDS, self._slots.kind.size))
        dropping.largest_parts(index, self._scales().astype(np.float64), self.omega, largest)
        return largest.max(axis=0)

    # --- merging ---

    def _prototypes(self) -> tuple[Slots, Classes, Dots, Ints]:
        return self._slots, self._classes, self._dots, self._rank

    def _merge(self) -> None:
        relative = self.rule.relative_merge or self.rule.merge_percentile >= 0
        which = np.arange(self._touched.size) if relative else np.flatnonzero(self._touched)
        of, distance = merging.pairs_of(which, *self._prototypes())
        threshold = merging.threshold_of(self.rule, distance)
        self._merge_classes(np.unique(of[distance <= threshold]), threshold)

    def _merge_classes(self, which: Ints, threshold: float) -> None:
        absorbed: merging.Absorbed = {}
        for c in which.tolist():
            absorbed |= merging.join(c, threshold, self._counters, *self._prototypes())
        if not absorbed:
            return
        self._rescale_slots()
        feature, *found = self._entries_of(merging.involved(absorbed))
        changes = merging.changes_of(absorbed, *found)
        self._add(feature, changes.M, "M")
        if self._index.R.size:
            self._add(feature, changes.R, "R")
        if self._index.pmi.size:
            self._add(feature, changes.pmi, "pmi")

    # --- which features are hot, and where lists lie ---

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
            heat(self._index, features, self._hot_rows, self._sketch)
            self._hot_rows += features.size

    def _compact(self) -> None:
        """Takes the holes out of the pool; every list gets a little room."""
        room = packed_room(self._index.length)
        start = np.cumsum(room) - room
        end = int(room.sum())
        moved = {}
        for name in ("slot", "M", "R", "pmi"):
            old = getattr(self._index, name)
            if old.size or name == "slot":
                moved[name] = np.empty(end + end // 8 + 4096, old.dtype)
                move_lists(self._index, start, old, moved[name])
        self._index = self._index._replace(start=start, room=room.astype(np.int32), **moved)
        self._pool_end = end

    # --- memory budget: what `budget.keep_within` asks for ---

    @property
    def packed_bytes(self) -> int:
        """Bytes of the content when nothing but the lists' room is held in reserve."""
        index = self._index
        exact = sum(array.nbytes for array in (*index[:4], self._dots.values, self._count))
        listed = int(packed_room(index.length).sum()) * self._listed_bytes()
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
        count = hot_counts(self._index, self._hot_rows)[self._index.hot[hot]]
        cold = count * self.entry_bytes < self._hot_row_bytes()
        if not cold.any():
            return
        room = packed_room(count[cold])
        start = self._pool_end + np.cumsum(room) - room
        self._pool_end += int(room.sum())
        reserve_pool(self._index, self._pool_end)
        cool(self._index, hot[cold], start)
        self._index.room[hot[cold]] = room
        rows = self._index.hot[hot[~cold]]
        self._index.hot[hot[~cold]] = np.arange(rows.size)
        self._replace_hot(lambda hot: hot.take(rows, axis=1))
        self._hot_rows = rows.size
        self._begin_sketch()

    def merge_within(self, distance: float) -> None:
        """Merges all prototypes of one class that are so near."""
        of, between = merging.pairs_of(np.arange(self._touched.size), *self._prototypes())
        self._merge_classes(np.unique(of[between <= distance]), distance)
        self._drop(np.zeros(self._slots.kind.size))

    def largest_parts(self) -> Reals:
        """(slots,) largest part of each prototype's centre, 0 for empty slots."""
        centres = self._index._replace(R=self._index.R[:0], pmi=self._index.pmi[:0])
        return np.where(self._slots.kind % DEAD > 0, self._largest_parts(centres), 0.0)

    def part_counts(self, below: Reals) -> Longs:
        """(BUCKETS,) listed entries by bucket of their part, of those below ``below[slot]``."""
        shards = np.zeros((SHARDS, budget.BUCKETS), np.int64)
        dropping.part_counts(self._index, below, self._scales().astype(np.float64), self.omega, shards)
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

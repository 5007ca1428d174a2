"""What the indexed engine keeps: its tables, room in them, and single changes of the entries."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from prototide.core.engines import index_scoring
from prototide.core.engines.changing import Information, Operations, apply, plan, summed
from prototide.core.engines.copying import Copied, entries_of
from prototide.core.engines.dots import empty_dots, grown_dots, recompute_dots
from prototide.core.engines.index import TILE, empty_index, reserve_pool
from prototide.core.engines.merging import Change
from prototide.core.engines.plain import PlainEngine
from prototide.core.engines.sketch import empty_sketch, grown_sketch
from prototide.core.engines.tables import FREE, Ints, Longs, Reals, Rows, Rule, Slots, grown

RANKS_MORE = 2  # than prototypes of a class: for its trial and one born in the same group
TINY = 1e-30  # below, nothing in a float32 is told from 0


class IndexedKeeping(PlainEngine):
    """State of the indexed engine."""

    def __init__(self, rule: Rule, dtype: type[np.floating[Any]]) -> None:
        super().__init__(rule, dtype)
        self._dtype = dtype
        self._index = empty_index(0, rule.correction > 0, rule.pmi > 0, dtype)
        self._pool_end = 0
        self._hot_rows = 0
        self._rank = np.zeros(0, np.int32)  # of each slot among its class's prototypes
        self._begun = np.zeros(0)  # scratch of `settling.settle_group`
        self._dots = empty_dots(np.zeros(0, np.int32))
        self._count = np.zeros(0, np.int32)  # scratch of `changing.plan`
        self._sketch = empty_sketch(0, 0, rule.correction > 0)
        self._scale, self._tau = np.zeros(0, dtype), rule.tau  # for `_scales`
        self._end = 0  # no slot from here on is occupied
        self._limits = np.zeros(0, np.int64)  # last given to make_room
        self.rule_grows = False  # whether any class may have more than one prototype

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        tables = (self._index, self._sketch, self._slots, self._classes, self._features)
        return sum(array.nbytes for table in (*tables, (self._dots.values, self._count)) for array in table)

    def _used(self) -> int:
        while self._end > 0 and self._slots.kind[self._end - 1] == FREE:
            self._end -= 1
        return self._end

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

    def _begin_sketch(self) -> None:
        tiles, rows, _ = self._index.hot_M.shape
        self._sketch = empty_sketch(rows, tiles * TILE, self._index.R.size > 0)

    # --- room ---

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
        self._dots = grown_dots(self._dots, (self._classes.limit + RANKS_MORE).astype(np.int32))

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

    # --- entries ---

    def _change(
        self, rows: Rows, rate: Reals, operations: Operations, pmi: float = 0.0, lengths: bool = False
    ) -> Reals:
        """Applies operations to the entries, making room where they need it. ``pmi``: its weight, 0: leave it.

        Returns what each adds to |M|^2 of its slot if ``lengths`` asks for it.
        """
        if not operations.row.size:
            return np.zeros(0)
        items, planned, end = plan(self._index, rows, rate, operations, self._count, self._pool_end)
        reserve_pool(self._index, end)
        self._pool_end = end
        information = Information(self._slots.kind, self._slots.mass, self._features.total, self._scalars, pmi)
        gain = np.empty(items.x.size if lengths else 0)
        apply(self._index, items, operations, planned, information, self._sketch, gain)
        return summed(items, gain, operations.row.size if lengths else 0)

    def _add(self, feature: Ints, changes: list[Change], onto: Literal["M", "R", "pmi"]) -> None:
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

    def _entries_of(self, which: NDArray[Any]) -> Copied:
        """All entries of some slots."""
        flag = np.zeros(self._slots.kind.size, np.bool_)
        flag[which] = True
        return entries_of(self._index, flag)

    def _entries(self, slot: int) -> tuple[Ints, Reals, Reals]:
        feature, _, M, R, _ = self._entries_of(np.array([slot]))
        kept = (M != 0) | (R != 0)
        return feature[kept], M[kept].astype(np.float64), R[kept].astype(np.float64)

    def _recompute_dots(self) -> None:
        """The products of all classes' prototypes, from the entries."""
        recompute_dots(self._dots, self._slots, self._classes, self._rank, self._entries_of)

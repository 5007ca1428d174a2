"""The indexed engine: the rule of the plain engine, on all cores, without a look at what cannot matter.

Five stages for a group of rows: score all slots (`indexed_ranking`), every class decides for its own rows in parallel
(`deciding`), slots are given and the changes collected (`settling`), the changes are applied feature by feature in
parallel (`changing`), what is shared by all classes is brought up to date. No stage passes over prototypes x features.
Results do not depend on the number of threads, and equal those of the plain engine up to rounding.

    IndexedKeeping   tables, room, entries      `index`, `changing`, `copying`, `dots`, `sketch`
    IndexedRanking   scores                     `index_scoring`, `shortlist`, `bounds`, `half`
    IndexedUpkeep    maintenance, budget        `merging`, `dropping`
    IndexedEngine    learning, state            `deciding`, `settling`, `sole`
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prototide.core.engines import learning, settling, sole
from prototide.core.engines.answers import Probed, Ranking
from prototide.core.engines.changing import Operations
from prototide.core.engines.copying import arrays_of, index_of
from prototide.core.engines.deciding import DEAD
from prototide.core.engines.dots import empty_dots, sized_dots
from prototide.core.engines.indexed_keeping import RANKS_MORE
from prototide.core.engines.indexed_ranking import IndexedRanking
from prototide.core.engines.indexed_upkeep import IndexedUpkeep
from prototide.core.engines.movement import Journey
from prototide.core.engines.tables import ACTIVE, BORN, OMEGA, Ints, Longs, Reals, Rows, Trace, chain_of
from prototide.core.rows import CsrRows


class IndexedEngine(IndexedRanking, IndexedUpkeep):
    """The plain engine's state and steps on an `index.Index`."""

    name = "indexed"

    def seed(self, rows: CsrRows, own_class: Ints, weight: Reals) -> None:
        """Makes each row a prototype of its class."""
        self._reserve_slots(rows.count)
        unit = self._unit(rows)
        slots, p = np.empty(rows.count, np.int32), -1
        for t in range(rows.count):
            c = int(own_class[t])
            taken = {int(self._rank[p]) for p in chain_of(self._slots, self._classes, c)}
            p = learning.occupy(self._slots, self._classes, self._counters, c, ACTIVE, p + 1)
            slots[t] = p
            self._rank[p] = min(set(range(len(taken) + 1)) - taken)
            self._end = max(self._end, p + 1)
            self._slots.mass[p], self._slots.square[p] = weight[t], weight[t] ** 2
            self._classes.active[c] += 1
            self._classes.wait[c] = self.rule.grow_after
            self._counters[BORN] += 1
        order = np.argsort(slots, kind="stable")
        self._change(
            unit,
            np.zeros(unit.x.size),
            Operations(order.astype(np.int32), slots[order], weight[order], np.zeros(rows.count)),
        )
        self._rescale_slots(slots)
        self._recompute_dots()
        self._heat()

    def _learn_group(
        self, rows: CsrRows, own_class: Ints, weight: Reals, top: Ranking, asked: Longs, journey: Journey,
        answers: bool,
    ) -> Probed:  # fmt: skip
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
            return Probed(winners, probed)
        self._reserve_slots(learned.size)
        settled = settling.settle_group(
            unit, own_class, weight, frozen, *products, self._slots, self._rank, self._begun, self._classes,
            self._features, self._scalars, self._counters, self.rule, *self._dots,
            self._most_active(learned.size) + 1,
        )  # fmt: skip
        self._end = max(self._end, settled.end)
        if settled.heir.size and self._index.R.size:
            self._inherit(settled.heir, settled.source)
        self._change(unit, settled.rate, settled.operations, self.rule.pmi)
        self._rescale_slots(settled.operations.slot)
        self._touched[settled.present] = True
        journey.add(unit, Trace(np.array([settled.slot.size]), *settled[3:9]))
        return Probed(winners, probed, (settled.own_slot, self._ids(settled.own_slot), settled.own_score))

    def _only_attracts(self) -> bool:
        """Whether a class's only prototype takes all of its rows and nothing is learned from other classes."""
        alone = self._class_sizes()[1] <= 1 and not (self._classes.trial >= 0).any()
        return self.rule.correction == 0 and not self.rule_grows and alone

    def _attract(self, unit: Rows, own_class: Ints, weight: Reals, probed: Reals, journey: Journey) -> Probed:
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
        sole.lengthen(operations.slot, gained, self._slots, self._rank, *self._dots)
        self._rescale_slots(operations.slot)
        self._touched[own_class[own_class >= 0]] = True
        none = np.full(count, -1, np.int32), np.zeros(count)
        attracted = operations.row.astype(np.int64), operations.slot, operations.m, before
        journey.add(unit, Trace(np.array([learned]), *attracted, *none))
        return Probed(np.full(count, -1), probed)

    def _inherit(self, target: Ints, source: Ints) -> None:
        """Promoted prototypes get the correction of the one that they stand beside, as it was at the group's start."""
        feature, slot, _, R, pmi = self._entries_of(np.unique(source))
        held = [np.flatnonzero((slot == s) & ((R != 0) | (pmi != 0))) for s in source]
        self._add(feature, [(at, p, R[at]) for at, p in zip(held, target, strict=True)], "R")
        if self._index.pmi.size:
            self._add(feature, [(at, p, pmi[at]) for at, p in zip(held, target, strict=True)], "pmi")

    # --- state ---

    def state(self) -> dict[str, NDArray[Any]]:
        """The whole model as named arrays, copies: the plain engine's, and what only this one keeps (``index.*``)."""
        used = self._used()
        arrays = self._tables_state(used) | arrays_of(self._index, self._slots.kind[:used] % DEAD != 0)
        return arrays | {
            "index.hot": np.flatnonzero(self._index.hot >= 0),
            "index.rank": self._rank[:used].copy(),
            "index.dots": self._dots.values.copy(),
            "index.dots_size": self._dots.size.copy(),
        }

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Becomes the model whose `state` this is, the plain engine's or this one's."""
        self._restore_tables(arrays)
        self._end = self._slots.kind.size
        self._scale, self._begun = np.zeros(self._end, self._dtype), np.empty(self._end)
        self._rescale_slots()
        self._limits, self.rule_grows = np.zeros(0, np.int64), bool((self._classes.limit > 1).any())
        corrected = self.rule.correction > 0 or bool(arrays["entry.correction"].any())
        informed = self.rule.pmi > 0 or bool(arrays["entry.pmi"].any())
        self._index = index_of(arrays, corrected, informed, self._dtype)
        self._pool_end = int(arrays["entry.count"].sum())
        self._count = np.zeros(self.n_features, np.int32)
        self._hot_rows = 0
        self._begin_sketch()
        self._grow_hot(0)
        if "index.rank" in arrays:
            self._rank = np.array(arrays["index.rank"])
            self._dots = sized_dots(np.array(arrays["index.dots"]), np.array(arrays["index.dots_size"]))
            self._make_hot(arrays["index.hot"].astype(np.int32))
        else:
            self._rank = np.zeros(self._slots.kind.size, np.int32)
            for c in range(self._classes.active.size):
                for place, p in enumerate(chain_of(self._slots, self._classes, c)):
                    self._rank[p] = place
            most = np.maximum(self._classes.limit, self._classes.active)
            self._dots = empty_dots((most + RANKS_MORE).astype(np.int32))
            self._recompute_dots()
            self._heat()


def _taken(rows: Rows, which: Longs) -> Rows:
    """Some rows, in that order."""
    lengths = np.diff(rows.indptr)[which]
    indptr = np.append(0, np.cumsum(lengths))
    entry = np.arange(indptr[-1]) - np.repeat(indptr[:-1], lengths) + np.repeat(rows.indptr[which], lengths)
    return Rows(indptr, rows.indices[entry], rows.x[entry])

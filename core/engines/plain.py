"""The plain engine: the rule of docs/model.md step after step, exhaustive scoring. The reference of faster ones.

It holds class numbers, slots and features; labels, input formats and parameters' names are the classifier's.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from prototide.core import memory
from prototide.core.engines import budget, learning, maintenance, scoring
from prototide.core.engines.answers import OwnBest, Probed, Ranking, Step
from prototide.core.engines.merging import threshold_of
from prototide.core.engines.movement import Journey, Movement, joined
from prototide.core.engines.postings import (
    Holdings,
    Postings,
    compacted,
    empty_holdings,
    empty_postings,
    gather,
    holdings_of,
    packed_room,
    widened,
    with_slots,
)  # fmt: skip
from prototide.core.engines.tables import (
    ACTIVE,
    BORN,
    FREE,
    MERGED,
    OMEGA,
    PRUNED,
    STEP,
    TRIAL,
    Classes,
    Features,
    Flags,
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

MAINTENANCE_ROWS = 1024
YOUNG = 32  # a group holds one row for so many learned before, while the model is young
OMEGA_DOUBLINGS = 40  # of omega in one group
OMEGA_MOST = 1e12  # omega beyond does not wait for the next maintenance to be divided out
PROBES = 32  # rows of each full group whose scores of all classes are reported, for the calibration
BLOCK_BYTES = 32 << 20  # scores of a block of rows against all slots


class PlainEngine:
    """State of the model and the steps on it. Rows are `CsrRows`; classes are numbered from 0."""

    name = "plain"

    def __init__(self, rule: Rule, dtype: type[np.floating[Any]]) -> None:
        self.rule = rule
        self.rows_learned = 0
        none = np.zeros(0, np.int64)
        short, real = none.astype(np.int32), np.zeros(0)
        self._postings, self._holdings = empty_postings(dtype), empty_holdings()
        self._slots = Slots(short, none.astype(np.int8), real, real, none, none, short)
        self._classes = Classes(short, short, none, none, none, none, none, none, short)
        self._features = Features(real, real, real)
        self._scalars = np.array([1.0, 0.0, 1.0, 0.0])
        self._counters = np.zeros(5, np.int64)
        self._sizes_at, self._sizes = (-1, -1, -1), (0, 0)
        self._touched = np.zeros(0, np.bool_)  # classes that learned since the last maintenance
        self._told_budget = False  # that it cannot be met

    # --- what there is ---

    @property
    def n_features(self) -> int:
        """Features seen."""
        return int(self._features.violation.size)

    @property
    def active(self) -> Ints:
        """Active prototypes of each class."""
        return self._classes.active

    @property
    def step(self) -> int:
        """Training steps: calls of `learn` that learned at least one row."""
        return int(self._counters[STEP])

    @property
    def counts(self) -> dict[str, int]:
        """Prototypes born, pruned and merged since the model began."""
        return {name: int(self._counters[at]) for name, at in (("born", BORN), ("pruned", PRUNED), ("merged", MERGED))}

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        tables = (self._postings, self._holdings, self._slots, self._classes, self._features)
        return sum(array.nbytes for table in tables for array in table)

    def heaviest_class(self) -> int:
        """Class of the active prototype with the largest mass, -1 for none."""
        active = self._slots.kind == ACTIVE
        return int(self._slots.cls[np.argmax(np.where(active, self._slots.mass, -1.0))]) if active.any() else -1

    # --- inside prototypes ---

    @property
    def slots(self) -> Slots:
        """The table of slots, to look at."""
        return self._slots

    @property
    def omega(self) -> float:
        """What masses and centres are stored times."""
        return float(self._scalars[OMEGA])

    def scoring_vector(self, slot: int) -> tuple[Ints, Reals, Reals]:
        """(features ascending, tau M / |M|, R / omega) of a prototype; a row's score is its product with their sum."""
        features, M, R = self._entries(slot)
        length = float(np.sqrt(self._slots.square[slot]))
        return features, M * (self.rule.tau / length if length > 0 else 0.0), R / self.omega

    def _entries(self, slot: int) -> tuple[Ints, Reals, Reals]:
        features, M, R, _ = gather(self._postings, self._holdings, slot)
        return features, M.astype(np.float64), R.astype(np.float64)

    def centres(self) -> sp.csr_matrix:
        """The sums M of all slots, (slots, features): a copy."""
        state = self.state()
        indptr, shape = np.append(0, np.cumsum(state["entry.count"])), (self._slots.kind.size, self.n_features)
        return sp.csc_matrix((state["entry.centre"], state["entry.slot"], indptr), shape).tocsr()

    def weighted(self, rows: CsrRows) -> Reals:
        """(non-zeros,) the rows' values times the idf, at unit length."""
        return self._unit(rows).x

    # --- scores ---

    def rank(self, rows: CsrRows, depth: int) -> tuple[Ranking, Longs]:
        """The ``depth`` best classes of each row, and the id of its winning prototype (-1 for none)."""
        ranking, used = Ranking.empty(rows.count, depth), self._used()
        for first, last, _, _, score in self._score_blocks(self._unit(rows), used):
            part = ranking.part(first, last)
            scoring.rank_classes(score, self._slots, self._classes, used, part.classes, part.slots, part.scores)
        return ranking, self._winners(ranking)

    def class_scores(self, rows: CsrRows) -> Reals:
        """Score of every class for every row, (n, classes); -inf for a class without prototypes."""
        out, used = np.empty((rows.count, self._classes.active.size)), self._used()
        for first, last, _, _, score in self._score_blocks(self._unit(rows), used):
            scoring.class_scores(score, self._slots, used, out[first:last])
        return out

    def _winners(self, ranking: Ranking) -> Longs:
        return self._ids(ranking.slots[:, 0])

    def _ids(self, slots: Ints) -> Longs:
        return np.where(slots >= 0, self._slots.id[slots], -1) if self._slots.id.size else np.full(slots.shape, -1)

    def _used(self) -> int:
        occupied = np.flatnonzero(self._slots.kind)
        return int(occupied[-1]) + 1 if occupied.size else 0

    def _class_sizes(self) -> tuple[int, int]:
        """(classes with prototypes, most active prototypes of one); known until one is born or gone."""
        changes = tuple(self._counters[BORN : MERGED + 1].tolist())
        if changes != self._sizes_at:
            active = self._classes.active
            self._sizes_at, self._sizes = changes, (int(np.count_nonzero(active)), int(active.max(initial=0)))
        return self._sizes

    def _unit(self, rows: CsrRows) -> Rows:
        x = np.empty(rows.indices.size)
        scoring.unit_rows(
            rows.indptr, rows.indices, rows.data, self._features.document_frequency, self._scalars, self.rule.idf, x
        )
        return Rows(rows.indptr, rows.indices, x)

    def _score_blocks(
        self, rows: Rows, used: int
    ) -> Iterator[tuple[int, int, NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """(first row, last row + 1, cosines, corrections, scores) of blocks of rows; the arrays are reused."""
        count = rows.indptr.size - 1
        size = max(1, min(count, BLOCK_BYTES // (24 * max(1, used))))
        cos, correction, score = (np.empty((size, used)) for _ in range(3))
        for first in range(0, count, size):
            last = min(first + size, count)
            block = Rows(rows.indptr[first : last + 1], rows.indices, rows.x)
            scoring.score_slots(
                block, self._postings, self._slots, self._scalars, self.rule, used, cos, correction, score
            )
            yield first, last, cos[: last - first], correction[: last - first], score[: last - first]

    # --- learning ---

    def check_memory(self, rows: CsrRows) -> None:
        """MemoryError, before anything changes, when learning these rows may need more than a device has."""

    def make_room(self, limits: Longs, width: int) -> None:
        """Room for one class per entry of ``limits`` (its most prototypes) and for ``width`` features."""
        if limits.size > self._classes.active.size:
            self._classes = Classes(*grown(self._classes, limits.size, (0, -1, 0, 0, 0, 0, 0, 1, -1)))
            self._touched = np.append(self._touched, np.zeros(limits.size - self._touched.size, np.bool_))
        self._classes.limit[:] = limits
        if width > self.n_features:
            self._features = Features(*grown(self._features, width, (0, 0, 0)))
            self._postings = widened(self._postings, width)

    def group_rows(self) -> int:
        """Learned rows that share one scoring: few while the model is young, then about two a class."""
        most = self._most_group_rows(self._class_sizes()[0])
        return most if self.rule.update_rows else max(1, min(most, self.rows_learned // YOUNG))

    def _most_group_rows(self, classes: int) -> int:
        """The same of a model that has learned many rows."""
        rows = self.rule.update_rows or max(1, min(2 * classes, max(256, classes)))
        if self.rule.decay > 1:  # omega, one value a group, stays far below what float32 holds
            rows = min(rows, max(1, int(OMEGA_DOUBLINGS / np.log2(self.rule.decay))))
        return rows

    def bytes_to_learn(self, rows: int, non_zeros: int, classes: int, most: int) -> int:
        """Upper bound of what learning may allocate. ``classes`` afterwards, each of at most ``most`` prototypes."""
        slots = self._slots.kind.size + rows
        together = self._most_group_rows(classes)
        # First of one row, then of a share of those before, then full ones.
        groups = YOUNG * (2 + math.log(together)) + rows // together
        probes = min(rows, PROBES * int(groups))
        return memory.most_bytes(
            model_bytes=self.nbytes,
            scratch_bytes=64 * slots + 8 * classes * probes + min(2 * BLOCK_BYTES, 24 * rows * slots),
            rows=rows,
            non_zeros=non_zeros,
            changes=min(most, int(self._classes.active.max(initial=0)) + rows) + 2 + self.rule.wrong_classes,
        )

    def seed(self, rows: CsrRows, own_class: Ints, weight: Reals) -> None:
        """Makes each row a prototype of its class."""
        self._reserve_slots(rows.count)
        self._postings, self._holdings = learning.seed_rows(
            self._unit(rows), own_class, weight,
            self._postings, self._holdings, self._slots, self._classes, self._counters, self.rule,
        )  # fmt: skip

    def learn(self, rows: CsrRows, own_class: Ints, weight: Reals, depth: int) -> Step:
        """Predicts each row just before it learns it. Rows with ``own_class`` -1 are predicted only.

        ``depth``: best classes of each row; 0: nobody wants to know, the ranking may be empty.
        The rows are cut into groups of `group_rows` learned rows; each group is scored against the model as it is then.
        """
        learned = np.flatnonzero(own_class >= 0)
        self._counters[STEP] += learned.size > 0
        ranking = Ranking.empty(rows.count, max(depth, self.rule.wrong_classes + 1))
        prototypes, own = np.full(rows.count, -1, np.int64), OwnBest.none(rows.count)
        probe_classes, probe_scores, movements, journey = [], [], [], self._begin_journey()
        first = done = 0
        while first < rows.count:
            group = self.group_rows()
            size, stride = min(group, learned.size - done), max(1, group // PROBES)
            last = int(learned[done + size]) if done + size < learned.size else rows.count
            asked = learned[done + -self.rows_learned % stride : done + size : stride] - first
            top = ranking.part(first, last)
            with threads_for(last - first, self._slots.kind.size):
                probed = self._learn_group(
                    rows.part(first, last),
                    own_class[first:last],
                    weight[first:last],
                    top,
                    asked,
                    journey,
                    depth > 0,
                )
            prototypes[first:last] = probed.winners
            own.put(first, *probed.own)
            probe_classes.append(own_class[first + asked])
            probe_scores.append(probed.scores)
            due = (self.rows_learned + size) // MAINTENANCE_ROWS > self.rows_learned // MAINTENANCE_ROWS
            if due or self._scalars[OMEGA] > OMEGA_MOST:
                movements.append(self._movement(journey))
                if self._scalars[OMEGA] > self.rule.rescale_at:
                    self._rescale()
                if due:
                    self._maintain()
                journey = self._begin_journey()
            self.rows_learned += size
            first, done = last, done + size
        return Step(
            ranking, prototypes, own, probe_classes, probe_scores, joined([*movements, self._movement(journey)])
        )

    def _learn_group(
        self, rows: CsrRows, own_class: Ints, weight: Reals, top: Ranking, asked: Longs, journey: Journey,
        answers: bool,
    ) -> Probed:  # fmt: skip
        """1. score against the model as it is; 2. each class learns its own rows; 3. what crosses classes."""
        learned = int(np.count_nonzero(own_class >= 0))
        self._scalars[OMEGA] *= self.rule.decay**learned
        unit = self._unit(rows)
        frozen, scores = self._freeze(unit, own_class, top, asked)
        winners = self._winners(top)
        if not learned:
            return Probed(winners, scores)
        self._reserve_slots(learned)
        trial_id = np.where(self._classes.trial >= 0, self._slots.id[self._classes.trial], -1)
        capacity = learned * (self._most_active(learned) + 1)  # and the trial
        trace = Trace(
            np.zeros(1, np.int64), np.empty(capacity, np.int64), np.empty(capacity, np.int32), np.empty(capacity),
            np.empty(capacity), np.full(rows.count, -1, np.int32), np.zeros(rows.count),
        )  # fmt: skip
        begun = np.where(self._slots.kind == ACTIVE, self._slots.square, -1.0)
        stolen, loss = np.zeros(self._classes.active.size, np.int64), np.full(rows.count, -1.0)
        push_slot = np.full((rows.count, self.rule.wrong_classes), -1, np.int32)
        push_step = np.zeros(push_slot.shape)
        self._postings, self._holdings = learning.learn_rows(
            unit, own_class, weight, frozen, self._postings, self._holdings, self._slots, self._classes, self._features,
            self._scalars, self._counters, self.rule, trace, stolen, loss, push_slot, push_step,
        )  # fmt: skip
        self._postings, self._holdings = learning.finish_group(
            unit, own_class, weight, self._postings, self._holdings, self._slots, self._classes, self._features,
            self._scalars, self.rule, trial_id, stolen, loss, push_slot, push_step,
        )  # fmt: skip
        trace.before[: trace.end[0]] = begun[trace.slot[: trace.end[0]]]
        if self.rule.pmi > 0:
            learning.refresh_pmi(unit, trace, self._postings, self._slots, self._features, self._scalars, self.rule.pmi)
        self._touched[own_class[own_class >= 0]] = True
        journey.add(unit, trace)
        return Probed(winners, scores, (trace.own_slot, self._ids(trace.own_slot), trace.own_score))

    def _begin_journey(self) -> Journey:
        return Journey()

    def _most_active(self, learned: int) -> int:
        """Most active prototypes of a class inside a group: at first one more, then one for each trial's five rows."""
        now = self._class_sizes()[1]
        if learned == 1 and now:
            return now + 1
        most = now + 1 + learned // (self.rule.grow_after + int(self.rule.grow_gain))
        return max(now, min(most, int(self._classes.limit.max())))

    def _movement(self, journey: Journey) -> Movement:
        return journey.movement(self._slots, float(self._scalars[OMEGA]), self.n_features)

    def _reserve_slots(self, births: int) -> None:
        missing = births - int(np.count_nonzero(self._slots.kind == FREE))
        if missing > 0:
            size = self._slots.kind.size + max(missing, self._slots.kind.size // 2)
            self._slots = Slots(*grown(self._slots, size, (0, FREE, 0, 0, -1, 0, -1)))
            self._holdings = with_slots(self._holdings, size)

    def _freeze(self, rows: Rows, own: Ints, top: Ranking, asked: Longs) -> tuple[Frozen, Reals]:
        """Fills ``top``; what learning needs of the scores, and the scores of all classes of the rows ``asked``."""
        used, start = self._used(), np.zeros(own.size + 1, np.int64)
        asked_scores = np.empty((asked.size, self._classes.active.size))
        steal_class, steal_score = [np.zeros(0, np.int32)], [np.zeros(0)]
        for first, last, cos, correction, score in self._score_blocks(rows, used):
            part = top.part(first, last)
            scoring.rank_classes(score, self._slots, self._classes, used, part.classes, part.slots, part.scores)
            here = (asked >= first) & (asked < last)
            chosen = np.empty((int(here.sum()), asked_scores.shape[1]))
            scoring.class_scores(score[asked[here] - first], self._slots, used, chosen)
            asked_scores[here] = chosen
            count = np.zeros(last - first + 1, np.int64)
            scored = (
                cos,
                correction,
                score,
                self._slots,
                self._classes,
                used,
                self.rule.tau,
                own[first:last],
                part.classes,
                part.scores,
            )
            scoring.steals(*scored, count, steal_class[0], steal_score[0])
            begin = np.cumsum(count)
            if begin[-1] > 0:
                steal_class.append(np.empty(begin[-1], np.int32))
                steal_score.append(np.empty(begin[-1]))
                scoring.steals(*scored, begin, steal_class[-1], steal_score[-1])
            start[first + 1 : last + 1] = start[first] + begin[1:]
        frozen = Frozen(
            top.classes, top.slots, top.scores, start, np.concatenate(steal_class), np.concatenate(steal_score)
        )
        return frozen, asked_scores

    def _rescale(self) -> None:
        maintenance.rescale(self._postings, self._slots, self._features, self._scalars)

    def _maintain(self) -> None:
        rule = self.rule
        everything = self._everything()
        maintenance.exact_norms(self._postings, self._holdings, self._slots, self._touched)
        maintenance.prune(*everything, self._scalars, self._counters, rule)
        if rule.merge_distance > 0:
            threshold, touched = self._merge_threshold()
            self._postings, self._holdings = maintenance.merge(*everything, self._counters, threshold, touched)
        if rule.truncation > 0:
            maintenance.truncate(self._postings, self._holdings, self._slots, self._scalars, rule, self._touched)
        self._touched[:] = False
        self._keep_to_budget()
        crowded = 0 < rule.memory_budget < self.nbytes
        if crowded or self._postings.end[0] > 1.5 * self._postings.length.sum() + MAINTENANCE_ROWS:
            self._postings, self._holdings = compacted(self._postings, self._holdings)

    def _merge_threshold(self) -> tuple[float, Flags]:
        """Distance at which prototypes merge, and the classes to look at: all, when it depends on all distances."""
        rule = self.rule
        if not rule.relative_merge and rule.merge_percentile < 0:
            return rule.merge_distance, self._touched
        return threshold_of(rule, self._pair_distances()), np.ones_like(self._touched)

    def _pair_distances(self) -> Reals:
        """1 - cosine of each pair of prototypes of one class."""
        everything = self._everything()
        distances = np.empty(maintenance.pair_distances(*everything, np.empty(0)))
        maintenance.pair_distances(*everything, distances)
        return distances

    # --- memory budget: what `budget.keep_within` asks for ---

    def _keep_to_budget(self) -> None:
        most = self.rule.memory_budget
        if most and not budget.keep_within(self, most) and not self._told_budget:
            self._told_budget = True
            budget.warn_too_small(most, self, int(self.active.sum()), self.n_features)

    @property
    def packed_bytes(self) -> int:
        """Bytes of the content when nothing but the lists' room is held in reserve."""
        entry, used = self._postings.slot.itemsize + 3 * self._postings.M.itemsize, self._used()
        by_feature = packed_room(self._postings.length).sum() * entry
        by_slot = packed_room(self._holdings.length).sum() * self._holdings.feature.itemsize
        lists = sum(array.nbytes for array in self._postings[:3]) + 16 * used  # and those of the slots
        return int(by_feature + by_slot) + lists + self._tables_bytes(used)

    def _tables_bytes(self, used: int) -> int:
        exact = sum(array.nbytes for table in (self._classes, self._features) for array in table)
        return exact + used * sum(array.itemsize for array in self._slots)

    @property
    def entry_bytes(self) -> float:
        """Bytes that an entry takes, with its share of the lists' room."""
        return 1.25 * (self._postings.slot.itemsize + 3 * self._postings.M.itemsize + self._holdings.feature.itemsize)

    def pack_hot(self) -> None:
        """This engine keeps nothing for speed."""

    def merge_within(self, distance: float) -> None:
        """Merges all prototypes of one class that are so near."""
        everywhere = np.ones_like(self._touched)
        self._postings, self._holdings = maintenance.merge(*self._everything(), self._counters, distance, everywhere)

    def largest_parts(self) -> Reals:
        """(slots,) largest part of each prototype's centre, 0 for empty slots."""
        return maintenance.largest_parts(*self._everything()[:3], self.rule.tau)

    def part_counts(self, below: Reals) -> Longs:
        """Entries by bucket of their part, of those below ``below[slot]``."""
        return maintenance.part_counts(*self._everything()[:3], self._scalars, self.rule.tau, below)

    def drop_parts(self, least: Reals) -> None:
        """Drops the entries whose part is below ``least[slot]``."""
        maintenance.drop_parts(*self._everything()[:3], self._scalars, self.rule.tau, least, True)

    def _everything(self) -> tuple[Postings, Holdings, Slots, Classes]:
        return self._postings, self._holdings, self._slots, self._classes

    # --- state ---

    def state(self) -> dict[str, NDArray[Any]]:
        """The whole model as named arrays, copies; equal models give equal bytes, whatever their history."""
        self._postings, self._holdings = compacted(self._postings, self._holdings)
        postings, used = self._postings, self._used()
        inside = np.repeat(postings.start, postings.length) + _ranges(postings.length)
        return self._tables_state(used) | {
            "entry.count": postings.length.copy(),  # (features,) entries of each feature, slots ascending
            "entry.slot": postings.slot[inside],
            "entry.centre": postings.M[inside],
            "entry.correction": postings.R[inside],
            "entry.pmi": postings.pmi[inside],
        }

    def _tables_state(self, used: int) -> dict[str, NDArray[Any]]:
        arrays: dict[str, NDArray[Any]] = {
            "scalars": self._scalars.copy(),
            "counters": np.append(self._counters, self.rows_learned),
            "class.touched": self._touched.copy(),
        }
        for group, table in (("feature", self._features), ("class", self._classes)):
            arrays |= {f"{group}.{name}": array.copy() for name, array in table._asdict().items()}
        return arrays | {f"slot.{name}": array[:used].copy() for name, array in self._slots._asdict().items()}

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Becomes the model whose `state` this is."""
        self._restore_tables(arrays)
        kind = self._slots.kind
        kind[(kind != ACTIVE) & (kind != TRIAL)] = FREE  # the indexed engine's slots that wait to be emptied
        count, slot = np.array(arrays["entry.count"]), np.array(arrays["entry.slot"])
        start = np.cumsum(count, dtype=np.int64) - count
        self._postings = Postings(
            start, count, count.copy(), np.array([slot.size]), slot, np.array(arrays["entry.centre"]),
            np.array(arrays["entry.correction"]), np.array(arrays["entry.pmi"]),
        )  # fmt: skip
        feature = np.repeat(np.arange(count.size, dtype=np.int32), count)
        self._holdings = holdings_of(slot, feature, kind.size)

    def _restore_tables(self, arrays: dict[str, NDArray[Any]]) -> None:
        def table(group: str, names: tuple[str, ...]) -> list[NDArray[Any]]:
            return [np.array(arrays[f"{group}.{name}"]) for name in names]

        self._slots, self._classes = Slots(*table("slot", Slots._fields)), Classes(*table("class", Classes._fields))
        self._features = Features(*table("feature", Features._fields))
        self._sizes_at = (-1, -1, -1)
        self._scalars, self._touched = np.array(arrays["scalars"]), np.array(arrays["class.touched"])
        self._counters, self.rows_learned = np.array(arrays["counters"][:-1]), int(arrays["counters"][-1])


def _ranges(lengths: Ints) -> Longs:
    """0..n-1 for each n of ``lengths``, one after the other."""
    begins = np.cumsum(lengths, dtype=np.int64) - lengths
    return np.arange(int(lengths.sum()), dtype=np.int64) - np.repeat(begins, lengths)

"""The engine on a device: the plain engine's rule and state. A group of rows goes through

1. score     all rows against the model as it is (`scoring`),
2. lay out   rows by class, each class's prototypes on its rows' features (`group`),
3. learn     every class its rows in order (`learning`),
4. replay    births and deaths, on the host (`births`),
5. put back  changed and new entries, the pushes on wrong prototypes, statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prototide.core.compiling import kernel
from prototide.core.engines.answers import Probed, Ranking, Step
from prototide.core.engines.gpu import births, maintenance, scoring
from prototide.core.engines.gpu.entries import SLOT_BITS, SLOT_MASK, columns, keys_of
from prototide.core.engines.gpu.group import Changes, Group, Outcome, tables_of, take_tables
from prototide.core.engines.gpu.keeping import Keeping
from prototide.core.engines.gpu.movement import DeviceJourney
from prototide.core.engines.gpu.plan import Plan, by_class, lists
from prototide.core.engines.gpu.rows import DeviceRows, to_device, to_host, together, upload, uploads
from prototide.core.engines.gpu.scoring import Frozen, Roster, View
from prototide.core.engines.gpu.sums import ranges, squares_by
from prototide.core.engines.movement import Journey
from prototide.core.engines.tables import (
    ACTIVE,
    BORN,
    FREE,
    LOSS_ROWS,
    MEAN_LOSS,
    OMEGA,
    ROWS,
    TRIAL,
    Ints,
    Longs,
    Reals,
)  # fmt: skip
from prototide.core.rows import CsrRows

UPLOADED_ROWS = 8192  # at once: while some are scored, the next are on their way


class GpuEngine(Keeping):
    """The plain engine's state and steps, computed on ``device``."""

    name = "gpu"

    def weighted(self, rows: CsrRows) -> Reals:
        """(non-zeros,) the rows' values times the idf, at unit length."""
        return self._unit_there(upload(rows, self.device, self._real)).cpu().numpy().astype(np.float64)

    # --- scores ---

    def _idf(self, width: int) -> Tensor | None:
        if not self.rule.idf:
            return None
        return scoring.inverse_frequencies(self._frequency, float(self._scalars[ROWS]), self.omega, width)

    def _unit_there(self, rows: DeviceRows) -> Tensor:
        return self._compute.unit_rows(rows, self._idf(rows.width), self._real)

    def _roster(self) -> Roster:
        used, classes = self._used(), self._classes.active.size
        kind, cls = self._slots.kind[:used], self._slots.cls[:used]
        active, begin = by_class(np.where(kind == ACTIVE, cls, np.int32(-1)), classes)
        members = lists(active, begin, np.arange(classes), int(np.diff(begin).max(initial=1)), used)
        square = self._slots.square[:used]
        scale = 1 / np.sqrt(np.where(square > 0, square, np.inf))
        there = (
            kind.astype(np.int64), cls.astype(np.int64), members,
            np.flatnonzero(kind == TRIAL), scale,
        )  # fmt: skip
        return Roster(*together(there, self.device), used)

    def _view(self) -> View:
        if self._viewed is None or self._viewed.rule != self.rule:
            self._changed()
            self._viewed = View(self._store, self._roster(), self.n_features, self.omega, self.rule)
        return self._viewed

    def _blocks(self, rows: CsrRows, *, all_scores: bool) -> Iterator[tuple[int, int, DeviceRows, Tensor]]:
        """(first row, last row + 1, the rows, their unit values) of as many rows at once as can be scored."""
        size, idf = self._compute.rows_at_once(self._view(), rows.count, all_scores=all_scores), self._idf(rows.width)
        size = min(size, UPLOADED_ROWS)
        parts = (rows.part(first, min(first + size, rows.count)) for first in range(0, rows.count, size))
        first = 0
        for part in uploads(parts, self.device, self._real):
            yield first, first + part.count, part, self._compute.unit_rows(part, idf, self._real)
            first += part.count

    @torch.inference_mode()
    def rank(self, rows: CsrRows, depth: int) -> tuple[Ranking, Longs]:
        """The ``depth`` best classes of each row, and the id of its winning prototype (-1 for none)."""
        self._check_whole()
        found = [
            self._compute.rank(part, x, self._view(), depth) for *_, part, x in self._blocks(rows, all_scores=False)
        ]
        ranking = Ranking.empty(rows.count, depth)
        if found:
            classes, slots, scores = (torch.cat(column) for column in zip(*found, strict=True))
            _copy(ranking, classes, slots, scores)
        return ranking, self._winners(ranking)

    @torch.inference_mode()
    def class_scores(self, rows: CsrRows) -> Reals:
        """Score of every class for every row, (n, classes); -inf for a class without prototypes."""
        self._check_whole()
        out = np.empty((rows.count, self._classes.active.size))
        for first, last, part, x in self._blocks(rows, all_scores=True):
            out[first:last] = self._compute.class_scores(part, x, self._view()).cpu().numpy()
        return out

    def _freeze_there(self, rows: DeviceRows, x: Tensor, own: Tensor, asked: Longs, depth: int) -> Frozen:
        """The scores of a group, in blocks."""
        view, parts = self._view(), []
        size = self._compute.rows_at_once(view, rows.count, all_scores=view.roster.trials.numel() > 0)
        for first in range(0, rows.count, size):
            last = min(first + size, rows.count)
            inside = to_device(asked[(asked >= first) & (asked < last)] - first, self.device)
            block = rows.part(first, last), x[int(rows.ends[first]) : int(rows.ends[last])]
            frozen = self._compute.freeze(*block, view, own[first:last], inside, depth)
            if frozen.steal_row.numel():
                frozen.steal_row.add_(first)
            parts.append(frozen)
        return Frozen(*(torch.cat(field) for field in zip(*(vars(part).values() for part in parts), strict=True)))

    # --- learning ---

    @torch.inference_mode()
    def seed(self, rows: CsrRows, own_class: Ints, weight: Reals) -> None:
        """Makes each row a prototype of its class."""
        self._reserve_slots(rows.count)
        free = np.flatnonzero(self._slots.kind == FREE)[: rows.count]
        for p, c in zip(free.tolist(), own_class.tolist(), strict=True):
            births.occupy(self._slots, self._counters, p, c, ACTIVE)
            self._classes.active[c] += 1
            self._classes.wait[c] = self.rule.grow_after
            self._counters[BORN] += 1
        there = upload(rows, self.device, self._real)
        row = there.row
        x, mass = self._unit_there(there), to_device(weight, self.device).to(self._wide)
        M = (x * mass[row]).to(self._real)
        self._store.add(keys_of(there.indices, to_device(free, self.device)[row]), columns(M))
        self._slots.square[free] = squares_by(M, row, mass * mass).cpu().numpy()
        self._slots.mass[free] = weight
        self._changed(structure=True)

    @torch.inference_mode()
    def learn(self, rows: CsrRows, own_class: Ints, weight: Reals, depth: int) -> Step:
        """See `PlainEngine.learn`; the rows go to the device at once.

        A step that fails in the middle (the device's memory, an interrupt) leaves an engine that refuses to go on.
        """
        there = upload(rows, self.device, self._real)
        self._check_whole()
        self._failed = True
        step = super().learn(there, own_class, weight, depth)
        self._failed = False
        return step

    def _begin_journey(self) -> Journey:
        return DeviceJourney.from_here(self._slots, self._compute.squares)

    def _learn_group(
        self, rows: Any, own_class: Ints, weight: Reals, top: Ranking, asked: Longs, journey: Any, answers: bool
    ) -> Probed:
        learned = int(np.count_nonzero(own_class >= 0))
        if self.rule.decay != 1:
            self._scalars[OMEGA] *= self.rule.decay**learned
            self._changed()
        own = to_device(own_class.astype(np.int64), self.device)
        x, depth = self._unit_there(rows), top.classes.shape[1]
        if not learned:
            frozen = self._freeze_there(rows, x, own, asked, depth)
            return Probed(self._told(frozen, top), _doubles(frozen.asked))
        if self.rule.pmi > 0:
            self._store.inform()
        frozen = self._freeze_there(rows, x, own, asked, depth)
        plan = Plan.of(own_class, self._slots, self._classes, self.rule)  # the host's work, while the device scores
        rates = 1 / torch.sqrt(1 + self._violation / self.omega)
        numbers = tables_of(plan, self._slots, self._classes)
        group = self._compute.lay_out(plan, rows, x, weight, numbers, self._store, rates.to(self._real))
        group.face(frozen, own, self.rule.wrong_classes + 1)
        outcome = self._compute.learn(group, self.rule, self.omega, float(self._scalars[MEAN_LOSS]))
        changes = self._compute.put_back(group, outcome, self._store)
        self._count_rows(group, outcome)
        replayed, own_best, loss = self._replay(plan, group, outcome, own_class.size)
        journey.add_changes(changes)
        self._settle(group, outcome, changes, plan, replayed)
        self._count_steals(frozen, plan, outcome, replayed, own_class)
        if self.rule.correction == 0:  # nothing learns from it
            loss = np.where(own_class >= 0, -1.0, np.nan)
        _count_losses(loss, weight, self._scalars)
        self._inform(group, replayed)
        self._touched[plan.classes] = True
        self._changed()
        return Probed(self._told(frozen, top), _doubles(frozen.asked), own_best)

    def _told(self, frozen: Frozen, top: Ranking) -> Longs:
        """Fills ``top``; the winners' ids."""
        _copy(top, frozen.top_class, frozen.top_slot, frozen.top_score)
        return self._winners(top)

    def _replay(
        self, plan: Plan, group: Group, outcome: Outcome, count: int
    ) -> tuple[births.Replayed, tuple[Ints, Longs, Reals], Reals]:
        """Births and deaths; the tables of slots and classes as the device left them.

        Also each of the batch's rows' best own prototype and its loss, NaN for rows that were not learned.
        """
        of_rows = (outcome.event, outcome.event_slot, outcome.own, outcome.own_score, outcome.loss)
        found = to_host(torch.stack([column.to(self._wide) for column in of_rows])).astype(np.float64, copy=False)
        event, event_slot = found[:2].astype(np.int32)
        self._reserve_slots(int(np.count_nonzero(event)))
        replayed = births.replay(plan, event, event_slot, self._slots, self._classes, self._counters)
        take_tables(group.tables, replayed.place, plan, self._slots, self._classes)
        slots, scores, losses = np.full(count, -1, np.int32), np.zeros(count), np.full(count, np.nan)
        _in_order(found, plan.row, plan.first, plan.count, replayed.place, slots, scores, losses)
        return replayed, (slots, self._ids(slots), scores), losses

    def _settle(
        self, group: Group, outcome: Outcome, changes: Changes, plan: Plan, replayed: births.Replayed
    ) -> None:  # fmt: skip
        """Puts in what is new of what the classes learned; then what crosses classes: pushes on wrong prototypes."""
        entries, width = self._store, group.slot.shape[1]
        parts = self._inherited(group, plan, outcome, replayed)
        maintenance.drop_slots(entries, replayed.vacated, self._slots.kind.size)
        new = torch.nonzero(changes.new)[:, 0]
        pair = group.key[new // width]
        slot = to_device(replayed.place, self.device).view(-1)[(pair >> SLOT_BITS) * width + new % width]
        if replayed.vacated:
            kept = slot >= 0
            new, pair, slot = new[kept], pair[kept], slot[kept]
        keys, values = keys_of(pair & SLOT_MASK, slot), columns(group.M.view(-1)[new], group.R.view(-1)[new])
        if not parts and self.rule.correction == 0:
            entries.insert(keys, values)
            return
        parts.append((keys, values))
        if self.rule.correction > 0:
            parts.append(self._pushes(group, outcome))
        entries.add(*(torch.cat(column) for column in zip(*parts, strict=True)))

    def _inherited(
        self, group: Group, plan: Plan, outcome: Outcome, replayed: births.Replayed
    ) -> list[tuple[Tensor, Tensor]]:
        """The corrections that promoted trials took over, on features outside the group's rows."""
        source = outcome.source.cpu().numpy() if self.rule.correction > 0 else np.zeros((0, 0))
        parts = []
        for k, local in np.argwhere(source >= 0).tolist():
            if replayed.place[k, local] < 0:
                continue
            inside = (self._store.slot == int(plan.slot[k, source[k, local]])) & (self._store.R != 0)
            feature, values = self._store.feature[inside], [array[inside] for array in self._store.values[1:]]
            touched = torch.isin(feature, group.pair_feature[int(group.pair_first[k]) : int(group.pair_first[k + 1])])
            values[0] = torch.where(touched, 0.0, values[0])  # there the group has them
            target = torch.full_like(feature, int(replayed.place[k, local]))
            parts.append((keys_of(feature, target), columns(None, *values)))
        return parts

    def _pushes(self, group: Group, outcome: Outcome) -> tuple[Tensor, Tensor]:
        """R_w -= omega a mu x of every row on its best wrong prototypes w: entries to add."""
        row, rival = torch.nonzero(outcome.step, as_tuple=True)
        which, at = ranges(group.indptr[row], group.indptr[row + 1] - group.indptr[row])
        step = (-self.omega * outcome.step[row, rival])[which]
        R = (step * group.rate[at] * group.x[at]).to(self._real)
        return keys_of(group.feature[at], group.rival_slot[row, rival][which]), columns(None, R)

    def _count_steals(
        self, frozen: Frozen, plan: Plan, outcome: Outcome, replayed: births.Replayed, own_class: Ints
    ) -> None:
        """Rows that a trial of another class would have taken: only of trials that are still there."""
        if not frozen.steal_row.numel():
            return
        kept = plan.classes[replayed.kept]
        absent = np.setdiff1d(np.flatnonzero(self._classes.trial >= 0), plan.classes)
        row, cls, score = (part.cpu().numpy() for part in (frozen.steal_row, frozen.steal_class, frozen.steal_score))
        right, own = np.zeros(own_class.size, np.bool_), np.zeros(own_class.size)
        right[plan.row] = outcome.right.cpu().numpy() > 0
        own[plan.row] = outcome.own_score.cpu().numpy()
        robbed = right[row] & (self._classes.limit[own_class[row]] > 1) & (score > own[row])
        stolen = np.bincount(cls[robbed], minlength=self._classes.stolen.size)
        still = np.concatenate([kept, absent])
        self._classes.stolen[still] += stolen[still]

    def _count_rows(self, group: Group, outcome: Outcome) -> None:
        """Document frequencies, violations, totals."""
        rule = self.rule
        frequency, violation, total = self._compute.count(group, outcome, rule, self.omega, self.n_features)
        if rule.idf:
            self._frequency += frequency
        if rule.correction > 0:
            self._violation += violation
        if rule.pmi > 0:
            self._total += total

    def _inform(self, group: Group, replayed: births.Replayed) -> None:
        """The mutual information, anew, of every entry that an active prototype attracted in the group; R follows.

        omega pmi sign(M) log(1 + |M| / (total * mass / N + omega)), see `postings.pmi_of`.
        """
        pmi, store, slots = self._store.pmi, self._store, self._slots
        if self.rule.pmi == 0 or pmi is None:
            return
        slot = to_device(replayed.place, self.device)[group.pair_class]
        mass = to_device(np.where(slots.kind == ACTIVE, slots.mass, 0.0), self.device).to(self._wide)
        attracted = (group.M_before != group.M) & (slot >= 0) & (mass[slot.clamp(min=0)] > 0)
        which = torch.nonzero(attracted.view(-1))[:, 0]
        feature, slot = group.pair_feature[which // slot.shape[1]], slot.view(-1)[which]
        at = store.find(keys_of(feature, slot))  # they are there: what was attracted is not 0, or was not
        M, expected = store.M[at].to(self._wide), self._total[feature] * mass[slot] / float(self._scalars[ROWS])
        new = self.omega * self.rule.pmi * M.sign() * torch.log1p(M.abs() / (expected + self.omega))
        new = new.to(pmi.dtype)
        store.R[at] += new - pmi[at]
        pmi[at] = new


def _copy(ranking: Ranking, classes: Tensor, slots: Tensor, scores: Tensor) -> None:
    ranking.classes[:], ranking.slots[:] = to_host(torch.stack([classes, slots]).int())
    ranking.scores[:] = to_host(scores)


def _doubles(there: Tensor) -> Reals:
    return to_host(there).astype(np.float64)


@kernel()
def _in_order(
    found: Reals, row: Longs, first: Longs, count: Longs, place: Longs, slots: Ints, scores: Reals, losses: Reals
) -> None:  # fmt: skip
    """What was found for each row by class, in the batch's order. ``found``: (5, rows)."""
    for k in range(first.size):
        for r in range(first[k], first[k] + count[k]):
            own, t = int(found[2, r]), row[r]
            slots[t] = place[k, own] if own >= 0 else -1
            scores[t], losses[t] = found[3, r], found[4, r]


@kernel()
def _count_losses(loss: Reals, weight: Reals, scalars: Reals) -> None:
    """The running mean of the squared loss, row after row; below 0: a row without a rival; NaN: not learned."""
    omega, rows, mean = scalars[OMEGA], scalars[LOSS_ROWS], scalars[MEAN_LOSS]
    for t in range(loss.size):
        if np.isnan(loss[t]):
            continue
        rows += omega
        scalars[ROWS] += omega * weight[t]
        if loss[t] >= 0:
            mean += (loss[t] * loss[t] - mean) * max(0.001, omega / rows)
    scalars[LOSS_ROWS], scalars[MEAN_LOSS] = rows, mean

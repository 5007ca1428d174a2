"""Learning a group by torch alone: the reference of the kernel, and what computes without it.

All classes at once, each its first row, then each its second, ...: classes are independent, their rows are not.
The rule, step by step, is that of `prototide.core.engines.learning`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prototide.core.engines.gpu.entries import Entries, keys_of
from prototide.core.engines.gpu.group import (
    DISCARDED,
    NEW_CLASS,
    PROMOTED,
    TRIAL_BORN,
    Changes,
    Group,
    Outcome,
    Tables,
    new_outcome,
)  # fmt: skip
from prototide.core.engines.gpu.sums import ranges, sums_by
from prototide.core.engines.tables import ACTIVE, FREE, LINEAR, SOFTMAX, TRIAL, Rule


def learn(group: Group, rule: Rule, omega: float, mean_loss: float) -> Outcome:
    """Every class learns its rows: changes the group's M, R and tables, and tells what it found."""
    outcome = new_outcome(group)
    for number in range(int(group.count.max()) if group.count.numel() else 0):
        c = torch.nonzero(group.count > number)[:, 0]
        _Turn(group, outcome, c, group.first[c] + number, rule, omega, mean_loss).learn()
    return outcome


def put_back(group: Group, outcome: Outcome, entries: Entries) -> Changes:
    """Writes what the classes learned into the entries that there were, but for slots that changed hands."""
    k, stays = group.pair_class, outcome.born == 0
    known = (group.at >= 0) & stays[k]
    entries.M[group.at[known]] = group.M[known]
    entries.R[group.at[known]] = group.R[known]
    return Changes(
        keys_of(group.pair_feature[:, None], group.slot.clamp(min=0)[k]).view(-1),
        torch.where((group.active & stays)[k], group.M - group.M_before, 0).view(-1),
        (~known & ((group.M != 0) | (group.R != 0))).view(-1),
    )


def count(group: Group, outcome: Outcome, rule: Rule, omega: float, features: int) -> Tensor:
    """(3, features) what the rows add to `tables.Features`: document frequency, violation, total."""
    hits = (outcome.step != 0).sum(1)
    each = torch.stack([group.weight, hits * group.weight, group.weight], 1) * omega
    each = torch.repeat_interleave(each, torch.diff(group.indptr), 0)
    each[:, 1] *= group.x.to(each.dtype) ** 2
    each[:, 2] *= group.x.abs()
    return sums_by(each, group.feature, features).T


class _Turn:
    """One row of each of some classes. ``c``: (k,) the classes; ``r``: (k,) their rows."""

    def __init__(
        self, group: Group, outcome: Outcome, c: Tensor, r: Tensor, rule: Rule, omega: float, mean_loss: float
    ) -> None:
        self.group, self.outcome, self.c, self.r = group, outcome, c, r
        self.rule, self.omega, self.mean_loss = rule, omega, mean_loss
        self.each = torch.arange(c.numel(), device=c.device)
        self.of, at = ranges(group.indptr[r], group.indptr[r + 1] - group.indptr[r])  # whose, which non-zero
        self.pair, self.x, self.rate = group.pair[at], group.x[at], group.rate[at]
        self.power = omega * group.weight[r]

    def learn(self) -> None:
        """Steps 1 to 5 of the rule."""
        group, table, c, r = self.group, self.group.tables, self.c, self.r
        cos, correction = self._own_scores()
        score = self.rule.tau * cos + correction
        own, best = self._best(score)
        known, wrong = best >= 0, group.wrong[r]
        self.outcome.own[r], self.outcome.own_score[r] = best.int(), torch.where(known, own, 0.0)
        rivalled = known & (wrong > -torch.inf)
        error = own < wrong
        self.outcome.loss[r] = torch.where(rivalled, (self.rule.margin - (own - wrong)).clamp(min=0), -1.0)
        self.outcome.right[r] = (rivalled & ~error).int()
        best = torch.where(known, best, self._found_class(~known))
        cos[self.each, best] = torch.where(known, cos[self.each, best], 0.0)
        growing = rivalled & (table.counts[c, Tables.LIMIT] > 1)
        trial = table.counts[c, Tables.TRIAL].clone()
        promoted = self._try(growing & (trial >= 0), trial.clamp(min=0), best, own, error, wrong, cos, correction)
        best = torch.where(promoted, trial, best)
        waiting = growing & (trial < 0) & error
        self._wait(waiting & (table.counts[c, Tables.ACTIVE] < table.counts[c, Tables.LIMIT]))
        self._attract(cos, best)
        if self.rule.correction > 0:
            self._correct(best)

    def _own_scores(self) -> tuple[Tensor, Tensor]:
        """(k, slots) cosines and corrections with what has been learned so far."""
        both = torch.stack([self.group.M[self.pair], self.group.R[self.pair]], 2) * self.x[:, None, None]
        products = sums_by(both, self.of, self.c.numel())
        square = self.group.tables.square[self.c]
        cos = torch.where(square > 0, products[..., 0] / torch.where(square > 0, square, 1.0).sqrt(), 0.0)
        return cos, products[..., 1] / self.omega

    def _best(self, score: Tensor) -> tuple[Tensor, Tensor]:
        """Score and slot of the best active slot, the first on a tie; -inf and -1 for none."""
        active = self.group.tables.kind[self.c] == ACTIVE
        played = torch.where(active, score, -torch.inf)
        own = played.amax(1)
        numbers = torch.arange(score.shape[1], device=score.device)
        best = torch.where(active & (played == own[:, None]), numbers, score.shape[1]).amin(1)
        return own, torch.where(best < score.shape[1], best, -1)

    def _happens(self, where: Tensor, event: int, slot: Tensor) -> None:
        self.outcome.event[self.r[where]] = event
        self.outcome.event_slot[self.r[where]] = slot[where].int()

    def _occupy(self, where: Tensor, kind: int) -> Tensor:
        """(k,) the first free slot of each class; given away ``where`` that holds."""
        table, c = self.group.tables, self.c
        slot = (table.kind[c] == FREE).int().argmax(1)
        table.kind[c[where], slot[where]] = kind
        self.outcome.born[c[where], slot[where]] = 1
        return slot

    def _found_class(self, where: Tensor) -> Tensor:
        """2. an unseen class: its first prototype is this row. (k,) the slot."""
        slot, counts = self._occupy(where, ACTIVE), self.group.tables.counts
        c = self.c[where]
        counts[c, Tables.ACTIVE], counts[c, Tables.TRIAL] = 1, -1
        counts[c, Tables.WAIT], counts[c, Tables.ERRORS] = self.rule.grow_after, 0
        self._happens(where, NEW_CLASS, slot)
        return slot

    def _try(
        self, tried: Tensor, trial: Tensor, best: Tensor, own: Tensor, error: Tensor, wrong: Tensor, cos: Tensor,
        correction: Tensor,
    ) -> Tensor:  # fmt: skip
        """3. a trial earns its place or goes. (k,) where a promoted one is now the best."""
        rule, each, c, table = self.rule, self.each, self.c, self.group.tables
        counts = table.counts
        theirs = cos[each, trial]
        would = rule.tau * theirs + correction[each, best]
        counts[c, Tables.AGE] += tried.long()
        counts[c, Tables.SAVED] += (tried & error & (would > wrong)).long()
        self._add_to_centres(trial, torch.where(tried & (theirs > cos[each, best]), self.power, 0.0))
        saved, stolen = counts[c, Tables.SAVED], counts[c, Tables.STOLEN]
        gain = saved - stolen
        passed = tried & (gain >= rule.grow_gain) & (gain >= rule.grow_z * (saved + stolen).to(self.power.dtype).sqrt())
        failed = tried & ~passed & ((counts[c, Tables.AGE] >= rule.trial_rows) | (gain <= -rule.grow_gain))
        self._happens(passed, PROMOTED, trial)
        self._happens(failed, DISCARDED, trial)
        over = passed | failed
        counts[c[over], Tables.TRIAL], counts[c[over], Tables.ERRORS] = -1, 0
        table.kind[c[passed], trial[passed]] = ACTIVE
        counts[c, Tables.ACTIVE] += passed.long()
        self._inherit(passed, best, trial)
        counts[c, Tables.WAIT] *= 1 + failed.long()
        self._vacate(failed, trial)
        return passed & (would > own)

    def _inherit(self, where: Tensor, source: Tensor, target: Tensor) -> None:
        """A promoted trial takes the corrections of the best prototype; ``source``: of those outside these rows too."""
        if not bool(where.any()):
            return
        c, s, t = self.c[where], source[where], target[where]
        group, outcome = self.group, self.outcome
        from_slot, to_slot = (torch.full_like(group.count, -1) for _ in range(2))
        from_slot[c], to_slot[c] = s, t
        which = torch.nonzero(to_slot[group.pair_class] >= 0)[:, 0]
        owner = group.pair_class[which]
        group.R[which, to_slot[owner]] = group.R[which, from_slot[owner]]
        outcome.source[c, t] = torch.where(outcome.born[c, s] > 0, outcome.source[c, s], s.int())

    def _vacate(self, where: Tensor, slot: Tensor) -> None:
        if not bool(where.any()):
            return
        group, c, s = self.group, self.c[where], slot[where]
        gone = torch.full_like(group.count, -1)
        gone[c] = s
        which = torch.nonzero(gone[group.pair_class] >= 0)[:, 0]
        group.M[which, gone[group.pair_class[which]]] = 0
        group.M_before[which, gone[group.pair_class[which]]] = 0
        group.R[which, gone[group.pair_class[which]]] = 0
        table = group.tables
        table.kind[c, s], table.mass[c, s], table.square[c, s] = FREE, 0, 0
        self.outcome.born[c, s], self.outcome.source[c, s] = 1, -1  # whoever comes here is another

    def _wait(self, where: Tensor) -> None:
        """3. after enough errors a row seeds a trial."""
        counts, c = self.group.tables.counts, self.c
        counts[c, Tables.ERRORS] += where.long()
        ripe = where & (counts[c, Tables.ERRORS] >= counts[c, Tables.WAIT])
        slot = self._occupy(ripe, TRIAL)
        self._add_to_centres(slot, torch.where(ripe, self.power, 0.0))
        counts[c[ripe], Tables.TRIAL] = slot[ripe]
        for column in (Tables.SAVED, Tables.STOLEN, Tables.AGE):
            counts[c[ripe], column] = 0
        self._happens(ripe, TRIAL_BORN, slot)

    def _add_to_centres(self, slot: Tensor, weight: Tensor) -> None:
        """M_slot += weight * x, one slot of each class."""
        full = torch.zeros(self.c.numel(), self.group.M.shape[1], dtype=weight.dtype, device=weight.device)
        full[self.each, slot] = weight
        self._add(full)

    def _add(self, weight: Tensor) -> None:
        """M += weight * x; ``weight``: (k, slots). |M|^2 and masses follow."""
        old = self.group.M[self.pair]
        step = (weight[self.of] * self.x[:, None]).to(old.dtype)
        self.group.M[self.pair] = old + step
        table = self.group.tables
        table.square[self.c] += sums_by(step.to(weight.dtype) * (2 * old + step), self.of, self.c.numel())
        table.mass[self.c] += weight

    def _attract(self, cos: Tensor, best: Tensor) -> None:
        """4. the K-means step, shared by closeness to the best own prototype."""
        difference = cos - cos[self.each, best][:, None]
        if self.rule.kernel == LINEAR:
            share = (self.rule.width + difference).clamp(min=0)
        elif self.rule.kernel == SOFTMAX:
            share = torch.exp(difference / self.rule.width)
        else:
            share = (difference == 0).to(cos.dtype)
        share = torch.where(self.group.tables.kind[self.c] == ACTIVE, share, 0.0)
        share = share / share.sum(1, keepdim=True)
        self._add(torch.where(share > self.rule.min_share, share, 0.0) * self.power[:, None])

    def _correct(self, best: Tensor) -> None:
        """5. lift the own prototype at once, note the pushes on the best wrong classes inside the margin."""
        group, rule, r = self.group, self.rule, self.r
        v = sums_by(self.rate * self.x * self.x, self.of, self.c.numel())
        cos, correction = self._own_scores()
        own = (rule.tau * cos + correction)[self.each, best]
        hits, total, going = torch.zeros_like(r), torch.zeros_like(own), torch.ones_like(r, dtype=torch.bool)
        for h in range(group.rival_score.shape[1]):
            score, violation = group.rival_score[r, h], rule.margin - (own - group.rival_score[r, h])
            going = going & (hits < rule.wrong_classes) & (score > -torch.inf) & (violation > 0)
            hit = going & (group.rival_class[r, h] >= 0)
            step = rule.correction * violation / (2 * v + rule.noise + rule.noise_adapt * self.mean_loss)
            weight = group.weight[r]
            capped = torch.minimum(step * weight, torch.maximum(step, violation / (2 * v)))
            step = torch.where(hit, torch.where(weight == 1, step, capped), 0.0)
            self.outcome.step[r, h] = step
            hits, total, own = hits + hit.long(), total + step, own + step * v
        change = (self.omega * total)[self.of] * self.rate * self.x
        group.R[self.pair, best[self.of]] += change.to(group.R.dtype)

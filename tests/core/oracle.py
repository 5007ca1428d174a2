"""The rule of docs/model.md once more, slow and obvious: dense float64 arrays, row after row, and explicit decay.

Where the engines let omega grow and divide by it, here everything that is remembered is multiplied by what is left of
it. No maintenance: for streams of fewer than 1,024 rows. Rows have at least one non-zero and weight 1.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from prototide.core.engines.tables import HARD, LINEAR, Rule

Row = NDArray[np.float64]


@dataclass(eq=False)
class OraclePrototype:
    """One centre of a class."""

    M: Row
    R: Row
    pmi: Row  # how much of R is mutual information
    active: bool
    mass: float = 0.0

    def cos(self, x: Row) -> float:
        """Cosine of the row and the centre."""
        length = float(np.linalg.norm(self.M))
        return float(x @ self.M) / length if length > 0 else 0.0

    def attract(self, x: Row, weight: float) -> None:
        """The K-means step."""
        self.M = self.M + weight * x
        self.mass += weight


@dataclass(eq=False)
class OracleClass:
    """One class: its prototypes in the order of their births, and the accounts of its growth."""

    prototypes: list[OraclePrototype] = field(default_factory=list)
    trial: OraclePrototype | None = None
    errors: int = 0
    wait: int = 3
    saved: int = 0
    stolen: int = 0
    age: int = 0


class Oracle:
    """Learns groups of rows; classes are numbered from 0."""

    def __init__(self, rule: Rule, features: int, k: int) -> None:
        self.rule, self.k = rule, k
        self.classes: dict[int, OracleClass] = {}
        self.frequency, self.violation, self.total = np.zeros(features), np.zeros(features), np.zeros(features)
        self.rows = self.loss_rows = 0.0
        self.mean_loss = 1.0

    def unit(self, row: Row) -> Row:
        """The row times the idf, at unit length."""
        x = row * (np.log((1 + self.rows) / (1 + self.frequency)) + 1) if self.rule.idf else row
        return x / np.linalg.norm(x)

    def score(self, prototype: OraclePrototype, x: Row) -> float:
        """tau cos + R . x"""
        return self.rule.tau * prototype.cos(x) + float(prototype.R @ x)

    def best(self, x: Row) -> dict[int, tuple[float, OraclePrototype]]:
        """Score and prototype of each class's best active prototype."""
        return {
            c: max(((self.score(p, x), p) for p in one.prototypes if p.active), key=lambda pair: pair[0])
            for c, one in self.classes.items()
        }

    def predict(self, row: Row) -> int:
        """The class of the highest score."""
        best = self.best(self.unit(row))
        return max(best, key=lambda c: best[c][0])

    def learn(self, rows: list[Row], labels: list[int]) -> None:
        """One group."""
        self._decay(len(rows))
        units = [self.unit(row) for row in rows]
        frozen = [self.best(x) for x in units]
        trials = {c: one.trial for c, one in self.classes.items()}
        trial_scores = [
            {
                c: self.rule.tau * trial.cos(x) + float(best[c][1].R @ x)
                for c, trial in trials.items()
                if trial is not None
            }
            for x, best in zip(units, frozen, strict=True)
        ]
        pushes: list[list[tuple[OraclePrototype, float]]] = []
        losses: list[float | None] = []
        stolen = dict.fromkeys(trials, 0)
        attracted: list[tuple[OraclePrototype, Row]] = []
        for x, y, others, thieves in zip(units, labels, frozen, trial_scores, strict=True):
            one = self.classes.setdefault(y, OracleClass(wait=self.rule.grow_after))
            wrong = sorted((c for c in others if c != y), key=lambda c: -others[c][0])
            scores = [(p, self.score(p, x)) for p in one.prototypes if p.active]
            losses.append(None)
            if not scores:
                own = OraclePrototype(np.zeros_like(x), np.zeros_like(x), np.zeros_like(x), active=True)
                one.prototypes.append(own)
                weights = {id(own): 1.0}
            else:
                own, own_score = max(scores, key=lambda pair: pair[1])
                cosines = {id(p): p.cos(x) for p in one.prototypes}
                if wrong:
                    worst = others[wrong[0]][0]
                    losses[-1] = max(0.0, self.rule.margin - (own_score - worst))
                    if self.k > 1:
                        if own_score >= worst:
                            for c, score in thieves.items():
                                stolen[c] += c != y and score > worst and score > own_score
                        own = self._grow(one, x, own, own_score, worst, cosines, attracted)
                weights = self._responsibilities(one, own, cosines)
            for p in one.prototypes:
                if p.active and weights.get(id(p), 0.0) > self.rule.min_share:
                    p.attract(x, weights[id(p)])
                    attracted.append((p, x))
            pushes.append(self._correct(x, own, [others[c] for c in wrong]))
        self._finish(units, trials, stolen, pushes, losses, attracted)

    def _decay(self, rows: int) -> None:
        left = self.rule.decay**-rows
        for one in self.classes.values():
            for p in one.prototypes:
                p.M, p.R, p.pmi, p.mass = p.M * left, p.R * left, p.pmi * left, p.mass * left
        self.frequency, self.violation, self.total = self.frequency * left, self.violation * left, self.total * left
        self.rows, self.loss_rows = self.rows * left, self.loss_rows * left

    def _grow(
        self,
        one: OracleClass,
        x: Row,
        own: OraclePrototype,
        own_score: float,
        worst: float,
        cosines: dict[int, float],
        attracted: list[tuple[OraclePrototype, Row]],
    ) -> OraclePrototype:
        """The trial of a class, if it has or needs one; the best own prototype afterwards."""
        error, trial, rule = own_score < worst, one.trial, self.rule
        if trial is None:
            if error and sum(p.active for p in one.prototypes) < self.k:
                one.errors += 1
                if one.errors >= one.wait:
                    one.trial = OraclePrototype(np.zeros_like(x), np.zeros_like(x), np.zeros_like(x), active=False)
                    one.prototypes.append(one.trial)
                    one.trial.attract(x, 1.0)
                    attracted.append((one.trial, x))
                    one.saved = one.stolen = one.age = 0
            return own
        one.age += 1
        trial_score = rule.tau * cosines[id(trial)] + float(own.R @ x)
        one.saved += error and trial_score > worst
        if cosines[id(trial)] > cosines[id(own)]:
            trial.attract(x, 1.0)
            attracted.append((trial, x))
        gain = one.saved - one.stolen
        if gain >= rule.grow_gain and gain >= rule.grow_z * np.sqrt(one.saved + one.stolen):
            trial.active, trial.R, trial.pmi = True, own.R.copy(), own.pmi.copy()
            one.trial, one.errors = None, 0
            return trial if trial_score > own_score else own
        if one.age >= rule.trial_rows or gain <= -rule.grow_gain:
            one.prototypes.remove(trial)
            one.trial, one.errors = None, 0
            one.wait *= 2
        return own

    def _responsibilities(self, one: OracleClass, own: OraclePrototype, cosines: dict[int, float]) -> dict[int, float]:
        def unnormalised(difference: float) -> float:
            if self.rule.kernel == HARD:
                return float(difference == 0)
            if self.rule.kernel == LINEAR:
                return max(0.0, self.rule.width + difference)
            return float(np.exp(difference / self.rule.width))

        weights = {
            id(p): unnormalised(cosines[id(p)] - cosines[id(own)])
            for p in one.prototypes
            if p.active and id(p) in cosines
        }
        total = sum(weights.values())
        return {key: weight / total for key, weight in weights.items()}

    def _correct(
        self, x: Row, own: OraclePrototype, wrong: list[tuple[float, OraclePrototype]]
    ) -> list[tuple[OraclePrototype, float]]:
        """Lifts the own prototype; the pushes on wrong ones, for the group's end."""
        rule, pushes = self.rule, list[tuple[OraclePrototype, float]]()
        if rule.correction == 0:
            return pushes
        rate = 1 / np.sqrt(1 + self.violation)
        v = float(rate @ (x * x))
        score = self.score(own, x)
        for other, prototype in wrong[: rule.wrong_classes]:
            if score - other >= rule.margin:
                break
            step = rule.correction * (rule.margin - (score - other))
            step /= 2 * v + rule.noise + rule.noise_adapt * self.mean_loss
            own.R = own.R + step * rate * x
            pushes.append((prototype, step))
            score += step * v
        return pushes

    def _finish(
        self,
        units: list[Row],
        trials: dict[int, OraclePrototype | None],
        stolen: dict[int, int],
        pushes: list[list[tuple[OraclePrototype, float]]],
        losses: list[float | None],
        attracted: list[tuple[OraclePrototype, Row]],
    ) -> None:
        """What crosses classes."""
        for c, trial in trials.items():
            if trial is not None and self.classes[c].trial is trial:
                self.classes[c].stolen += stolen[c]
        rate = 1 / np.sqrt(1 + self.violation)
        for x, row_pushes, loss in zip(units, pushes, losses, strict=True):
            for prototype, step in row_pushes:
                prototype.R = prototype.R - step * rate * x
            self.violation = self.violation + len(row_pushes) * x * x
            self.frequency = self.frequency + (x != 0)
            self.total = self.total + np.abs(x)
            self.rows += 1
            self.loss_rows += 1
            if loss is not None and self.rule.correction > 0:
                self.mean_loss += (loss * loss - self.mean_loss) * max(0.001, 1 / self.loss_rows)
        if self.rule.pmi > 0:
            for prototype, x in attracted:
                if prototype.active:
                    at = np.flatnonzero(x)
                    M, expected = prototype.M[at], self.total[at] * prototype.mass / self.rows
                    pmi = self.rule.pmi * np.sign(M) * np.log(1 + np.abs(M) / (expected + 1))
                    prototype.R[at] += pmi - prototype.pmi[at]
                    prototype.pmi[at] = pmi

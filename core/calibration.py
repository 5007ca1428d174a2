"""Probabilities from scores, calibrated online: one scalar b shapes them, a monotone map corrects the best class's.

    softmax: p_c ~ exp(b (s_c - s_best))             b minimises the log loss
    linear:  p_c ~ ReLU(1 - (s_best - s_c) / b)      b minimises the Brier score

b is the best of a grid (steps of 19 %) by exponentially forgetting loss. The map sends the best class's probability q
to the share of rows that were right where q was said (isotonic, over knots, forgetting); the other classes share the
rest in their proportions (evenly, where linear gave them nothing). Both learn from labelled rows, each judged by the
scores it had before it was learned. `temperature` sharpens or flattens softmax afterwards: p_c^(1 / temperature).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prototide.core.compiling import kernel

FORGET = 0.999  # a row 1,000 rows ago weighs e^-1
PRIOR = 0.02  # loss per squared grid step from the starting value, as if seen
MOST_CLASSES = 64  # b is learned from a row's best classes, so that tens of thousands cost no more
KNOTS = 16  # of the map, evenly from 0 to 1
PRIOR_ROWS = 20.0  # as if seen at each knot, right as often as said
GRIDS = {
    "softmax": (2.0 ** (np.arange(-8, 29) / 4), 16),
    "linear": (2.0 ** (np.arange(-16, 13) / 4), 16),
}  # values, start


def probabilities(scores: NDArray[np.float64], b: float, soft_type: str) -> NDArray[np.float64]:
    """Rows of probabilities from rows of scores (-inf: probability 0). Shapes (n, classes); rows sum to 1."""
    best = scores.max(axis=1, keepdims=True)
    gap = np.where(np.isfinite(scores), scores - np.where(np.isfinite(best), best, 0.0), -np.inf)
    with np.errstate(invalid="ignore"):
        p = np.exp(b * gap) if soft_type == "softmax" else np.maximum(0.0, 1 + gap / b)
    return _normalised(p)


def _normalised(p: NDArray[np.float64]) -> NDArray[np.float64]:
    total = p.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(p, total, out=np.zeros_like(p), where=total > 0))


@kernel(error_model="numpy")
def _add_losses(
    scores: NDArray[np.float64], truth: NDArray[np.int64], weight: NDArray[np.float64], values: NDArray[np.float64],
    softmax: bool, losses: NDArray[np.float64],
) -> None:  # fmt: skip
    """losses[k] += what `probabilities` of these rows lose with b = values[k]; every row has its truth among them."""
    for i in range(truth.size):
        best = scores[i].max()
        for k in range(values.size):
            total, squares, own = 0.0, 0.0, 0.0
            for c in range(scores.shape[1]):
                gap = scores[i, c] - best
                p = np.exp(values[k] * gap) if softmax else max(0.0, 1 + gap / values[k])
                total += p
                squares += p * p
                if c == truth[i]:
                    own = p
            own /= total
            loss = -np.log(max(own, 1e-12)) if softmax else squares / (total * total) - 2 * own + 1
            losses[k] += weight[i] * loss


class Calibration:
    """The running choice of b, and the running map of the best class's probability."""

    def __init__(self, soft_type: str) -> None:
        self.soft_type = soft_type
        self.values, start = GRIDS[soft_type]
        self.losses = np.asarray(PRIOR * (np.arange(self.values.size) - start) ** 2.0, np.float64)
        self.rows = np.full(KNOTS, PRIOR_ROWS)  # weight of the rows about each knot,
        self.right = PRIOR_ROWS * np.linspace(0, 1, KNOTS)  # and of those that were right

    @property
    def b(self) -> float:
        """The best value so far."""
        return float(self.values[np.argmin(self.losses)])

    def probabilities(self, scores: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
        """(n, classes) calibrated probabilities; rows sum to 1, the order of the scores stays."""
        p = probabilities(scores, self.b, self.soft_type)
        if p.shape[1] > 1:
            p = self._corrected(p, scores)
        if self.soft_type == "softmax" and temperature != 1:
            best = p.max(axis=1, keepdims=True)
            share = np.divide(p, best, out=np.zeros_like(p), where=best > 0)  # 1 stays 1, however low the temperature
            p = _normalised(share ** (1 / temperature))
        return p

    def _corrected(self, p: NDArray[np.float64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
        row, best = np.arange(p.shape[0]), p.argmax(axis=1)
        said = p[row, best]
        others = np.where(p.sum(axis=1, keepdims=True) > 0, p, 0.0)
        others[row, best] = 0
        certain = (others.sum(axis=1) <= 0) & (said > 0)
        others[certain] = np.isfinite(scores[certain])  # all of the others, where none had a share
        others[row, best] = 0
        rest = others.sum(axis=1)
        mapped = np.interp(said, np.linspace(0, 1, KNOTS), np.maximum.accumulate(self.right / self.rows))
        # the best stays the best: what it gives away does not lift the runner-up above it
        runner_up = np.divide(others.max(axis=1), rest, out=np.zeros_like(rest), where=rest > 0)
        mapped = np.where(rest > 0, np.maximum(mapped, runner_up / (1 + runner_up)), said)
        corrected = others * np.divide(1 - mapped, rest, out=np.zeros_like(rest), where=rest > 0)[:, None]
        corrected[row, best] = mapped
        return np.asarray(corrected)

    def learn(self, scores: NDArray[np.float64], truth: NDArray[np.int32]) -> None:
        """Takes in rows with their truth: scores (n, classes), -inf without prototypes; truth (n,) class numbers."""
        scored = np.isfinite(scores).any(axis=1) if scores.size else np.zeros(truth.size, bool)
        scores, truth = scores[scored], truth[scored]
        if not truth.size:
            return
        self._learn_map(scores, truth)
        row = np.arange(truth.size)
        seen = np.isfinite(scores[row, truth])
        scores, truth, row = scores[seen], truth[seen], row[: int(seen.sum())]
        weight = FORGET ** np.arange(truth.size - 1, -1, -1.0)
        self.losses *= FORGET**truth.size
        if scores.shape[1] > MOST_CLASSES:
            kept = np.argpartition(-scores, MOST_CLASSES - 1, axis=1)[:, :MOST_CLASSES]
            own_score = scores[row, truth]
            scores = np.take_along_axis(scores, kept, axis=1)
            missing = ~(kept == truth[:, None]).any(axis=1)
            last = scores.argmin(axis=1)
            truth = np.where(missing, last, (kept == truth[:, None]).argmax(axis=1))
            scores[row[missing], last[missing]] = own_score[missing]
        _add_losses(scores, truth.astype(np.int64), weight, self.values, self.soft_type == "softmax", self.losses)

    def _learn_map(self, scores: NDArray[np.float64], truth: NDArray[np.int32]) -> None:
        p = probabilities(scores, self.b, self.soft_type)
        best = p.argmax(axis=1)
        place = p[np.arange(truth.size), best] * (KNOTS - 1)
        low = np.minimum(place.astype(np.int64), KNOTS - 2)
        weight = FORGET ** np.arange(truth.size - 1, -1, -1.0)
        prior = FORGET**truth.size
        fade = np.linspace(0, 1, KNOTS) * PRIOR_ROWS
        self.rows = PRIOR_ROWS + prior * (self.rows - PRIOR_ROWS)  # the prior is not forgotten
        self.right = fade + prior * (self.right - fade)
        for knot, share in ((low, 1 + low - place), (low + 1, place - low)):
            np.add.at(self.rows, knot, weight * share)
            np.add.at(self.right, knot, weight * share * (best == truth))

    def state(self) -> dict[str, NDArray[Any]]:
        """Named arrays, copies."""
        return {"losses": self.losses.copy(), "rows": self.rows.copy(), "right": self.right.copy()}

    @classmethod
    def from_state(cls, soft_type: str, arrays: dict[str, NDArray[Any]]) -> Calibration:
        """The calibration whose `state` this is."""
        calibration = cls(soft_type)
        calibration.losses, calibration.rows = np.array(arrays["losses"]), np.array(arrays["rows"])
        calibration.right = np.array(arrays["right"])
        return calibration

"""Probabilities from scores, with one scalar b learned online, so that they are calibrated.

    softmax: p_c ~ exp(b (s_c - s_best) / temperature)              b minimises the log loss
    linear:  p_c ~ ReLU(1 - (s_best - s_c) / b)                     b minimises the Brier score

b is the best of a grid (steps of 19 %) by exponentially forgetting loss over labelled rows, each judged by the scores
it had before it was learned.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

FORGET = 0.999  # loss of a row 1,000 rows ago weighs e^-1
PRIOR = 0.02  # loss per squared grid step from the starting value, as if seen
GRIDS = {
    "softmax": (2.0 ** (np.arange(-8, 29) / 4), 16),
    "linear": (2.0 ** (np.arange(-16, 13) / 4), 16),
}  # values, start


def probabilities(scores: NDArray[np.float64], b: float, soft_type: str, temperature: float) -> NDArray[np.float64]:
    """Rows of probabilities from rows of scores (-inf: probability 0). Shapes (n, classes); rows sum to 1."""
    best = scores.max(axis=1, keepdims=True)
    gap = np.where(np.isfinite(scores), scores - np.where(np.isfinite(best), best, 0.0), -np.inf)
    with np.errstate(invalid="ignore"):
        p = np.exp(b * gap / temperature) if soft_type == "softmax" else np.maximum(0.0, 1 + gap / b)
    total = p.sum(axis=1, keepdims=True)
    return np.asarray(np.divide(p, total, out=np.zeros_like(p), where=total > 0))


class Calibration:
    """The running choice of b."""

    def __init__(self, soft_type: str) -> None:
        self.soft_type = soft_type
        self.values, start = GRIDS[soft_type]
        self.losses = PRIOR * (np.arange(self.values.size) - start) ** 2.0

    @property
    def b(self) -> float:
        """The best value so far."""
        return float(self.values[np.argmin(self.losses)])

    def learn(self, scores: NDArray[np.float64], truth: NDArray[np.int32]) -> None:
        """Judges every value on rows with known classes: scores (n, classes), truth (n,) class numbers."""
        seen = np.isfinite(scores[np.arange(truth.size), truth]) if truth.size else np.zeros(0, bool)
        scores, truth = scores[seen], truth[seen]
        if not truth.size:
            return
        weight = FORGET ** np.arange(truth.size - 1, -1, -1.0)
        row = np.arange(truth.size)
        self.losses *= FORGET**truth.size
        for k, b in enumerate(self.values):
            p = probabilities(scores, float(b), self.soft_type, 1.0)
            own = p[row, truth]
            loss = -np.log(np.maximum(own, 1e-12)) if self.soft_type == "softmax" else (p * p).sum(1) - 2 * own + 1
            self.losses[k] += weight @ loss

    def state(self) -> dict[str, NDArray[Any]]:
        """Named arrays, copies."""
        return {"losses": self.losses.copy()}

    @classmethod
    def from_state(cls, soft_type: str, arrays: dict[str, NDArray[Any]]) -> Calibration:
        """The calibration whose `state` this is."""
        calibration = cls(soft_type)
        calibration.losses = np.array(arrays["losses"])
        return calibration

"""Rows that belong to no known class: their score is low for the prototype that wins them.

Each prototype keeps the running mean m and variance v of the scores that rows of its own class had just before they
were learned; a young one (n rows) leans on the numbers of all rows:

    share = n / (n + PRIOR)        usual = share m + (1 - share) m_all        spread^2 = share v + (1 - share) v_all
    novelty(x) = (usual - score) / spread                of the winning prototype
    x is unknown when novelty(x) > reach

m_all is the mean score, v_all the mean of (usual - score)^2. ``reach`` is the running quantile of the novelty of
learned rows for their own prototypes (Robbins-Monro): a share ``quantile`` of them lies beyond it. Everything forgets,
and follows drift. Rows count alike, whatever their weights; nothing here changes what the model learns.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from prototide.core.compiling import kernel
from prototide.core.engines.answers import OwnBest
from prototide.core.engines.tables import Flags, Ints, Longs, Reals

DEFAULT_QUANTILE = 0.01  # of novelty="auto"
PRIOR = 50.0  # rows that the numbers of all rows count for
OWN_HORIZON = 200.0  # rows of a prototype over which its numbers are taken; half_life, when that is less
ALL_HORIZON = 5000.0  # the same for the numbers of all rows
LEAST_ROWS = 100.0  # no row is called unknown before so many were learned; the shortest horizon of all rows
GAIN = 0.35  # / quantile: about 1 / density of a normal distribution at a low quantile
LEAST_SPREAD = 1e-6
ROWS, MEAN, VARIANCE, REACH = 0, 1, 2, 3  # positions in `common`


class Usual(NamedTuple):
    """The scores that each slot's prototype is used to; one entry per slot."""

    owner: Longs  # id of the prototype that the numbers are of, -1 for none
    rows: Reals
    mean: Reals
    variance: Reals


@kernel()
def novelty_of(score: Any, rows: Any, mean: Any, variance: Any, common: Reals) -> Any:
    """How many spreads a score lies below what is usual; numbers or arrays of them."""
    share = rows / (rows + PRIOR)
    spread = np.sqrt(share * variance + (1 - share) * common[VARIANCE])
    return (share * mean + (1 - share) * common[MEAN] - score) / np.maximum(spread, LEAST_SPREAD)


@kernel()
def _own(usual: Usual, p: int, owner: int) -> tuple[float, float, float]:
    """(rows, mean, variance) of the prototype ``owner`` in slot p."""
    return (usual.rows[p], usual.mean[p], usual.variance[p]) if usual.owner[p] == owner else (0.0, 0.0, 0.0)


@kernel()
def take_in(usual: Usual, common: Reals, p: int, owner: int, score: float, quantile: float, horizons: Reals) -> None:
    """A row of the class of prototype ``owner`` in slot p, its best own one, was learned; it had this score before."""
    rows, mean, variance = _own(usual, p, owner)
    away = novelty_of(score, rows, mean, variance, common)
    if common[ROWS] >= LEAST_ROWS:
        error = (1.0 if away > common[REACH] else 0.0) - quantile
        common[REACH] = max(0.0, common[REACH] + GAIN / quantile * error / min(common[ROWS] + LEAST_ROWS, horizons[1]))
    share = rows / (rows + PRIOR)
    common[ROWS] += 1
    rate = 1 / min(common[ROWS], horizons[1])
    common[VARIANCE] += rate * ((share * mean + (1 - share) * common[MEAN] - score) ** 2 - common[VARIANCE])
    common[MEAN] += rate * (score - common[MEAN])
    rows += 1
    rate, difference = 1 / min(rows, horizons[0]), score - mean
    mean += rate * difference
    variance += rate * (difference * (score - mean) - variance)
    usual.owner[p], usual.rows[p], usual.mean[p], usual.variance[p] = owner, rows, mean, variance


@kernel()
def _learn(
    slots: Ints, ids: Longs, scores: Reals, own_slots: Ints, own_ids: Longs, own_scores: Reals,
    usual: Usual, common: Reals, quantile: float, horizons: Reals, unknown: Flags,
) -> None:  # fmt: skip
    """Row after row: unknown[t] is judged by the rows before t, then t itself is taken in."""
    for t in range(slots.size):
        if ids[t] >= 0 and common[ROWS] >= LEAST_ROWS:
            rows, mean, variance = _own(usual, slots[t], ids[t])
            unknown[t] = novelty_of(scores[t], rows, mean, variance, common) > common[REACH]
        if own_ids[t] >= 0:
            take_in(usual, common, own_slots[t], own_ids[t], own_scores[t], quantile, horizons)


class Novelty:
    """The running numbers of one model."""

    def __init__(self, quantile: float, half_life: float | None) -> None:
        self.quantile = quantile
        own = OWN_HORIZON if half_life is None else min(OWN_HORIZON, max(10.0, half_life))
        self.horizons = np.array([own, max(LEAST_ROWS, own * ALL_HORIZON / OWN_HORIZON)])
        none = np.zeros(0)
        self.usual = Usual(none.astype(np.int64), none, none, none)
        self.common = np.array([0.0, 0.0, 0.0, NormalDist().inv_cdf(1 - quantile)])

    def learn(self, slots: Ints, ids: Longs, scores: Reals, own: OwnBest) -> Flags:
        """(n,) which rows are unknown, each judged by the rows before it; then takes in those that were learned.

        slots, ids, scores: (n,) of the winning prototypes, id -1 for none. own: of the rows' own classes.
        """
        self._make_room(max(int(slots.max(initial=-1)), int(own.slots.max(initial=-1))) + 1)
        unknown = np.zeros(slots.size, np.bool_)
        _learn(
            slots, ids, scores, own.slots, own.ids, own.scores,
            self.usual, self.common, self.quantile, self.horizons, unknown,
        )  # fmt: skip
        return unknown

    def scores(self, slots: Ints, ids: Longs, scores: Reals) -> Reals:
        """(n,) novelty of rows that these prototypes win; 0 where none does, and before anything was learned."""
        self._make_room(int(slots.max(initial=-1)) + 1)
        own = self.usual.owner[slots] == ids
        rows, mean, variance = (np.where(own, numbers[slots], 0.0) for numbers in self.usual[1:])
        known = (ids >= 0) & (self.common[ROWS] > 0)
        return np.where(known, novelty_of(scores, rows, mean, variance, self.common), 0.0)

    def unknown(self, novelty: Reals) -> NDArray[np.bool_]:
        """Which rows of this novelty are unknown."""
        return np.asarray((novelty > self.common[REACH]) & (self.common[ROWS] >= LEAST_ROWS))

    def _make_room(self, slots: int) -> None:
        more = slots - self.usual.owner.size
        if more > 0:
            zeros = np.zeros(more)
            self.usual = Usual(
                np.append(self.usual.owner, np.full(more, -1)), *(np.append(a, zeros) for a in self.usual[1:])
            )

    def state(self) -> dict[str, NDArray[Any]]:
        """Named arrays, copies."""
        known = np.flatnonzero(self.usual.owner >= 0)
        used = int(known[-1]) + 1 if known.size else 0
        return {name: array[:used].copy() for name, array in self.usual._asdict().items()} | {
            "common": self.common.copy()
        }

    @classmethod
    def from_state(cls, quantile: float, half_life: float | None, arrays: dict[str, NDArray[Any]]) -> Self:
        """The numbers whose `state` this is."""
        novelty = cls(quantile, half_life)
        novelty.usual = Usual(*(np.array(arrays[name]) for name in Usual._fields))
        novelty.common = np.array(arrays["common"])
        return novelty

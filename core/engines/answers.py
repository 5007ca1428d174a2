"""What an engine answers about the rows that it is given."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prototide.core.engines.movement import Movement
from prototide.core.engines.tables import Ints, Longs, Reals


@dataclass(frozen=True)
class Ranking:
    """The best classes of each row. Shapes (n, depth); class and slot -1, score -inf where there are fewer."""

    classes: Ints
    slots: Ints
    scores: Reals

    @classmethod
    def empty(cls, rows: int, depth: int) -> Ranking:
        """Room for the ranking of so many rows."""
        return cls(np.empty((rows, depth), np.int32), np.empty((rows, depth), np.int32), np.empty((rows, depth)))

    def part(self, first: int, last: int) -> Ranking:
        """A view of some rows."""
        return Ranking(self.classes[first:last], self.slots[first:last], self.scores[first:last])


@dataclass(frozen=True)
class OwnBest:
    """Each row's best prototype of its own class just before it was learned. Shapes (n,); slot and id -1 for none."""

    slots: Ints
    ids: Longs
    scores: Reals

    @classmethod
    def none(cls, rows: int) -> OwnBest:
        """For so many rows, none found yet."""
        return cls(np.full(rows, -1, np.int32), np.full(rows, -1, np.int64), np.zeros(rows))

    def put(self, first: int, slots: Ints, ids: Longs, scores: Reals) -> None:
        """Fills in rows from ``first`` on."""
        rows = slice(first, first + slots.size)
        self.slots[rows], self.ids[rows], self.scores[rows] = slots, ids, scores


@dataclass(frozen=True)
class Step:
    """What `PlainEngine.learn` saw and did."""

    ranking: Ranking  # each row just before it was learned
    prototypes: Longs  # (n,) id of the winning prototype, -1 for none
    own: OwnBest
    probe_classes: list[Ints]  # of each group: own class of some learned rows,
    probe_scores: list[Reals]  # and their scores of all classes
    movement: Movement


@dataclass(frozen=True)
class Probed:
    """What learning one group tells of its rows."""

    winners: Longs  # (n,) ids
    scores: Reals  # (rows asked, classes)
    own: tuple[Ints, Longs, Reals] = (np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0))  # slots, ids, scores

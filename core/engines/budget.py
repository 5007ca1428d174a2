"""Keeping a model within `memory_budget_bytes`: the least useful content goes first, at maintenance.

    1. what costs speed alone      rows of the fast form that take more than lists
    2. what costs next to nothing  prototypes of one class that are nearly alike merge; the entries with the smallest
                                   part in their prototype's score go, never those above half of its largest
    3. whatever it takes           all prototypes of a class merge, nearest first; of each the largest entry stays

A part is max(tau |M_j| / |M|, |R_j| / omega), as in truncation, but with mutual information and measured on one scale
for all prototypes. "Its largest" is that of the centre, which is never lost. What is decided follows from the model's
content alone, so that a restored model goes on as the one that was saved would.
"""

from __future__ import annotations

import math
import warnings
from typing import Protocol

import numpy as np

from prototide.core.compiling import kernel
from prototide.core.engines.tables import Longs, Reals

CONTENT = 0.8  # of the budget; the rest is room for lists to grow in
AFTERWARDS = 0.9  # of the content's share: what is left when the budget was overrun
GENTLE = ((0.05, 0.1), 0.5)  # distances at which prototypes merge, one after the other; share of the largest part that
THOROUGH = ((0.2, 0.4, 0.8, 2.0), 0.999)  # is spared
BUCKETS = 4096  # of parts, 16 to an octave: the upper bits of a float32
MOST_PASSES = 8


class Budgeted(Protocol):
    """What an engine offers to be made smaller."""

    @property
    def packed_bytes(self) -> int:
        """Bytes of the content when nothing is held in reserve."""
        ...

    @property
    def entry_bytes(self) -> float:
        """Bytes that an entry takes, its share of the list's room included."""
        ...

    def pack_hot(self) -> None:
        """Gives up what is there for speed alone."""
        ...

    def merge_within(self, distance: float) -> None:
        """Merges all prototypes of one class that are so near."""
        ...

    def largest_parts(self) -> Reals:
        """(slots,) largest part of each prototype's centre, 0 for empty slots."""
        ...

    def part_counts(self, below: Reals) -> Longs:
        """(BUCKETS,) how many entries there are by `bucket` of their part, of those below ``below[slot]``."""
        ...

    def drop_parts(self, least: Reals) -> None:
        """Drops the entries whose part is below ``least[slot]``."""
        ...


@kernel()
def bucket(part: float) -> int:
    """Number of the bucket of a part."""
    return int(np.float32(part).view(np.int32)) >> 19


def edge(number: int) -> float:
    """Smallest part of a bucket."""
    return float(np.array(number << 19, np.int32).view(np.float32)) if number < 255 << 4 else math.inf


def content_limit(budget: int) -> int:
    """Bytes of content that a budget allows."""
    return int(CONTENT * budget)


def keep_within(engine: Budgeted, budget: int) -> bool:
    """Makes the model smaller if its content is above its share of ``budget``; whether it fits in the end."""
    limit = content_limit(budget)
    if engine.packed_bytes <= limit:
        return True
    goal = int(AFTERWARDS * limit)
    engine.pack_hot()
    for distances, spared in (GENTLE, THOROUGH):
        for distance in distances:
            if engine.packed_bytes > goal:
                engine.merge_within(distance)
        _drop_entries(engine, goal, spared)
    return engine.packed_bytes <= limit


def _drop_entries(engine: Budgeted, goal: int, spared: float) -> None:
    """Drops the entries of the smallest parts, of no prototype one above ``spared`` times its largest."""
    kept = spared * engine.largest_parts()
    for _ in range(MOST_PASSES):  # parts grow a little as others go: a second pass may be needed
        excess = engine.packed_bytes - goal
        if excess <= 0:
            return
        counts = np.cumsum(engine.part_counts(kept))
        if counts[-1] == 0:
            return
        least = edge(int(np.searchsorted(counts, min(counts[-1], excess / engine.entry_bytes))) + 1)
        engine.drop_parts(np.minimum(kept, least))


def warn_too_small(budget: int, engine: Budgeted, prototypes: int, features: int) -> None:
    """Tells that the budget cannot be met."""
    warnings.warn(
        f"memory_budget_bytes={budget} cannot be met: {prototypes} prototypes and the tables of {features} features "
        f"need at least {math.ceil(engine.packed_bytes / CONTENT)} bytes; raise it, or hash the rows to fewer columns",
        stacklevel=2,
    )

"""The tables that an engine works on, and the numbers of the rule. Structures of arrays, so that numba can pass them.

The rule itself, its formulae and its reasons are in ``docs/model.md``.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]  # float32 or float64
Reals = NDArray[np.float64]
Longs = NDArray[np.int64]
Ints = NDArray[np.int32]
Flags = NDArray[np.bool_]
Pool = NDArray[Any]

FREE, ACTIVE, TRIAL = 0, 1, 2  # kinds of slots
HARD, LINEAR, SOFTMAX = 0, 1, 2  # kinds of responsibility

OMEGA, ROWS, MEAN_LOSS, LOSS_ROWS = 0, 1, 2, 3  # positions in `scalars`; ROWS and LOSS_ROWS are weighted by omega
NEXT_ID, STEP, BORN, PRUNED, MERGED = 0, 1, 2, 3, 4  # positions in `counters`


class Rule(NamedTuple):
    """The numbers of one model's rule, as the kernels use them."""

    idf: bool
    correction: float  # 10 lambda_penalty: 1 is one full passive-aggressive step
    kernel: int  # HARD, LINEAR or SOFTMAX
    width: float  # of the responsibility kernel, in cosine
    decay: float  # omega grows by this factor a row
    mantissa_bits: int  # of the format that scores: 52, 23, 10 (float16) or 7 (bfloat16)
    min_weight: float
    merge_distance: float  # 0 disables
    relative_merge: bool  # merge_distance is a fraction of the mean distance
    merge_percentile: float  # and below this quantile of all distances; -1 for none
    truncation: float
    update_rows: int  # 0: automatic
    forget_classes: bool  # prune the last prototype of a class too
    memory_budget: int  # bytes, 0 for none
    tau: float = 2.0  # weight of the cosine in the score
    pmi: float = 0.0  # weight of the mutual information of prototype and feature
    margin: float = 1.0
    noise: float = 0.5  # keeps a single correction from closing all of a violation
    noise_adapt: float = 2.0  # the same, times the running mean of the squared hinge loss
    wrong_classes: int = 3  # corrected against at most so many
    grow_after: int = 3  # errors of a class before its first trial
    grow_gain: float = 2.0  # errors that a trial must have saved more than caused
    grow_z: float = 1.0  # the same in standard deviations
    trial_rows: int = 200  # life of a trial in rows of its class
    min_share: float = 1e-3  # responsibilities below are not attracted
    young_mass: float = 100.0  # below this mass nothing is truncated
    rescale_at: float = 1e6  # omega above this is divided out


class Slots(NamedTuple):
    """One entry per slot; a prototype lives in one slot from birth to death."""

    cls: Ints
    kind: NDArray[np.int8]
    mass: Reals  # sum of the attracted rows' weights, times omega
    square: Reals  # |M_p|^2
    id: Longs
    birth: Longs  # step in which it was born
    next: Ints  # next slot of the same class, ascending; -1 ends


class Classes(NamedTuple):
    """One entry per class."""

    active: Ints  # active prototypes
    trial: Ints  # slot of the trial, -1 for none
    errors: Longs  # since the last trial
    wait: Longs  # errors to wait for before the next trial
    saved: Longs  # own errors that the trial would have saved
    stolen: Longs  # rows of others that it would have stolen
    age: Longs  # rows that the trial has lived through
    limit: Longs  # most prototypes
    first: Ints  # first slot, -1 for none


class Features(NamedTuple):
    """One entry per feature."""

    document_frequency: Reals  # rows with it, times omega
    violation: Reals  # sum of x_j^2 of rows that violated the margin, times omega
    total: Reals  # sum of |x_j|, times omega; kept for the mutual information


class Rows(NamedTuple):
    """Rows as the kernels see them: CSR, ``x`` already scaled to unit length."""

    indptr: Longs  # (n + 1,)
    indices: Ints  # (non-zeros,) ascending inside a row
    x: Reals  # (non-zeros,)


class Frozen(NamedTuple):
    """Scores of a group's rows against the model as it was at the group's start."""

    top_class: Ints  # (n, depth) best first, -1 fills up
    top_slot: Ints  # (n, depth) each class's best prototype
    top_score: Reals  # (n, depth)
    steal_start: Longs  # (n + 1,) into the two below
    steal_class: Ints  # classes whose trial scores above the best wrong class
    steal_score: Reals


class Trace(NamedTuple):
    """Which row each prototype attracted, and how strongly: what the shift is computed from. And how near rows were."""

    end: Longs  # (1,) how many there are
    row: Longs
    slot: Ints
    weight: Reals
    before: Reals  # |M|^2 of the slot at the group's start, -1 where no active prototype was
    own_slot: Ints  # (n,) each learned row's best own prototype just before it was learned, -1 for none,
    own_score: Reals  # (n,) and its score


def grown(table: tuple[NDArray[np.generic], ...], size: int, fill: tuple[int, ...]) -> list[NDArray[np.generic]]:
    """The arrays of a table, each at least ``size`` long; new entries hold ``fill``."""
    return [
        array if array.size >= size else np.concatenate([array, np.full(size - array.size, value, array.dtype)])
        for array, value in zip(table, fill, strict=True)
    ]


def chain_of(slots: Slots, classes: Classes, c: int) -> list[int]:
    """Slots of a class, ascending."""
    chain, p = [], int(classes.first[c])
    while p >= 0:
        chain.append(p)
        p = int(slots.next[p])
    return chain

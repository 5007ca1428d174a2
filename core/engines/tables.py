"""The tables that an engine works on, and the numbers of the rule. Structures of arrays, so that numba can pass them.

The rule itself, its formulae and its reasons are in ``docs/model.md``.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

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
    tau: float = 2.0  # weight of the cosine in the score
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

    cls: NDArray[np.int32]
    kind: NDArray[np.int8]
    mass: NDArray[np.float64]  # sum of the attracted rows' weights, times omega
    square: NDArray[np.float64]  # |M_p|^2
    id: NDArray[np.int64]
    birth: NDArray[np.int64]  # step in which it was born
    next: NDArray[np.int32]  # next slot of the same class, ascending; -1 ends


class Classes(NamedTuple):
    """One entry per class."""

    active: NDArray[np.int32]  # active prototypes
    trial: NDArray[np.int32]  # slot of the trial, -1 for none
    errors: NDArray[np.int64]  # since the last trial
    wait: NDArray[np.int64]  # errors to wait for before the next trial
    saved: NDArray[np.int64]  # own errors that the trial would have saved
    stolen: NDArray[np.int64]  # rows of others that it would have stolen
    age: NDArray[np.int64]  # rows that the trial has lived through
    limit: NDArray[np.int64]  # most prototypes
    first: NDArray[np.int32]  # first slot, -1 for none


class Features(NamedTuple):
    """One entry per feature."""

    document_frequency: NDArray[np.float64]  # rows with it, times omega
    violation: NDArray[np.float64]  # sum of x_j^2 of rows that violated the margin, times omega


class Rows(NamedTuple):
    """Rows as the kernels see them: CSR, ``x`` already scaled to unit length."""

    indptr: NDArray[np.int64]  # (n + 1,)
    indices: NDArray[np.int32]  # (non-zeros,) ascending inside a row
    x: NDArray[np.float64]  # (non-zeros,)


class Frozen(NamedTuple):
    """Scores of a group's rows against the model as it was at the group's start."""

    top_class: NDArray[np.int32]  # (n, depth) best first, -1 fills up
    top_slot: NDArray[np.int32]  # (n, depth) each class's best prototype
    top_score: NDArray[np.float64]  # (n, depth)
    steal_start: NDArray[np.int64]  # (n + 1,) into the two below
    steal_class: NDArray[np.int32]  # classes whose trial scores above the best wrong class
    steal_score: NDArray[np.float64]


class Trace(NamedTuple):
    """Which row each prototype attracted, and how strongly: what the shift is computed from."""

    count: NDArray[np.int64]  # (1,)
    row: NDArray[np.int64]
    slot: NDArray[np.int32]
    weight: NDArray[np.float64]


def grown(table: tuple[NDArray[np.generic], ...], size: int, fill: tuple[int, ...]) -> list[NDArray[np.generic]]:
    """The arrays of a table, each at least ``size`` long; new entries hold ``fill``."""
    return [
        array if array.size >= size else np.concatenate([array, np.full(size - array.size, value, array.dtype)])
        for array, value in zip(table, fill, strict=True)
    ]

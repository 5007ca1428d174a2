"""The hot features' entries in 8 bits, feature after feature: what the shortlist of a row's best slots is made from.

    M[h, p] ~ near_M[h, p] * step_M[p]      off by at most step_M[p] / 2; R likewise

A hot entry that changes is written here at once; a slot with an entry that does not fit its step is ``stale`` and
`refresh` gives it a new step. Nothing that the engine answers depends on these numbers: scores are completed exactly.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import prange
from numpy.typing import NDArray

from prototide.core.compiling import kernel
from prototide.core.engines.tables import Flags, Floats, Ints

LARGEST = 127
AT_FIRST = 80  # what a slot's largest entry becomes: room for it to grow


class Sketch(NamedTuple):
    """The arrays of R are empty in a model without corrections."""

    M: NDArray[np.int8]  # (hot features, slots)
    R: NDArray[np.int8]
    step_M: NDArray[np.float32]  # (slots,)
    step_R: NDArray[np.float32]
    stale: Flags  # (slots,)


def empty_sketch(features: int, slots: int, corrected: bool) -> Sketch:
    """All stale."""
    step = np.zeros((2, slots), np.float32)
    return Sketch(
        np.zeros((features, slots), np.int8), np.zeros((features, slots) if corrected else (0, 0), np.int8),
        step[0], step[1], np.ones(slots, np.bool_),
    )  # fmt: skip


def grown_sketch(sketch: Sketch, features: int, slots: int, corrected: bool) -> Sketch:
    """The same with room for so many hot features and slots."""
    new, (have, wide) = empty_sketch(features, slots, corrected), sketch.M.shape
    new.M[:have, :wide] = sketch.M
    if corrected and sketch.R.size:
        new.R[:have, :wide] = sketch.R
    new.step_M[:wide], new.step_R[:wide], new.stale[:wide] = sketch.step_M, sketch.step_R, sketch.stale
    return new


@kernel()
def note(near: NDArray[np.int8], step: Floats, stale: Flags, h: int, p: int, value: float) -> None:
    """The entry of hot feature h and slot p is ``value`` now."""
    if abs(value) > LARGEST * step[p]:
        stale[p] = True
    elif value == 0:
        near[h, p] = 0
    else:
        near[h, p] = np.int8(np.rint(value / step[p]))


@kernel(parallel=True)
def refresh(
    M: NDArray[np.int8], R: NDArray[np.int8], step_M: Floats, step_R: Floats, stale: Ints, first: Ints, hot_M: Floats,
    hot_R: Floats, hot_rows: int,
) -> None:  # fmt: skip
    """Gives the slots ``stale`` new steps. ``first``: (runs + 1,) where the slots of each tile begin among them."""
    for run in prange(first.size - 1):
        here = stale[first[run] : first[run + 1]]
        tile = here[0] // hot_M.shape[2]
        _refresh_tile(M, step_M, here, hot_M[tile], hot_rows)
        if R.size > 0:
            _refresh_tile(R, step_R, here, hot_R[tile], hot_rows)


@kernel()
def _refresh_tile(near: NDArray[np.int8], step: Floats, slots: Ints, exact: Floats, hot_rows: int) -> None:
    width = exact.shape[1]
    largest = np.zeros(slots.size, np.float64)
    for h in range(hot_rows):
        for i in range(slots.size):
            largest[i] = max(largest[i], abs(exact[h, slots[i] % width]))
    for i in range(slots.size):
        step[slots[i]] = largest[i] / AT_FIRST
    for h in range(hot_rows):
        for i in range(slots.size):
            p = slots[i]
            near[h, p] = np.int8(np.rint(exact[h, p % width] / step[p])) if step[p] > 0 else 0

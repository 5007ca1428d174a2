"""No score is above its bound, whatever the 8 bits and the rounding make of the entries."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from prototide.core.engines import bounds, half
from prototide.core.engines.index import TILE
from prototide.core.engines.sketch import empty_sketch, refresh
from prototide.core.engines.tables import ACTIVE

HOT, SLOTS, TAU, PER_OMEGA = 40, 3 * TILE, 2.0, 0.3


def stored(random: np.random.Generator, spread: float) -> NDArray[np.float32]:
    """(tiles, hot features, TILE) entries over many orders of magnitude, a third of them 0, some slots huge."""
    values = random.standard_normal((SLOTS // TILE, HOT, TILE)) * 10.0 ** random.uniform(-spread, 0, (HOT, TILE))
    values[random.random(values.shape) < 1 / 3] = 0
    return values.astype(np.float32)


def bounds_and_scores(seed: int, corrected: bool, mantissa_bits: int, size: float) -> tuple[Any, Any]:
    """The bounds of one row's scores, all of whose features are hot, and the scores in float64."""
    random = np.random.default_rng(seed)
    M, R = stored(random, 8), stored(random, 3) * np.float32(size)
    scale = (TAU / np.sqrt((M.astype(np.float64) ** 2).sum(1))).ravel().astype(np.float32)
    sketch = empty_sketch(HOT, SLOTS, corrected)
    every = np.arange(SLOTS, dtype=np.int32)
    refresh(*sketch[:4], every, np.arange(0, SLOTS + 1, TILE, dtype=np.int32), M, R, HOT)
    warm = np.sort(random.choice(HOT, 15, replace=False)).astype(np.int32)
    x = random.standard_normal(15).astype(np.float32)
    x /= np.linalg.norm(x)
    near, push = np.empty(SLOTS, np.float32), np.empty(SLOTS if corrected else 0, np.float32)
    bounds.add_near(sketch.M, warm, x, near)
    if corrected:
        bounds.add_near(sketch.R, warm, x, push)
    nothing, found = np.zeros(SLOTS, np.float32), np.empty(SLOTS, np.float32)
    reach, slack = bounds.reach_of(x, 15, mantissa_bits)
    kind = np.full(SLOTS, ACTIVE, np.int8)
    if mantissa_bits <= half.FLOAT16_BITS:
        steps = sketch.step_M, sketch.step_R
        bounds.of_rounded(nothing, near, push, *steps, scale, PER_OMEGA, mantissa_bits, reach, slack, kind, found)
    elif corrected:
        bounds.of_both(
            nothing, near, nothing, push, sketch.step_M, sketch.step_R, scale, PER_OMEGA, reach, slack, kind, found
        )
    else:
        bounds.of_centres(nothing, near, sketch.step_M, scale, reach, slack, kind, found)
    by_slot = [table.transpose(0, 2, 1).reshape(SLOTS, HOT)[:, warm] for table in (M, R)]
    V = scale[:, None] * by_slot[0]
    if corrected:
        V = V + np.float32(PER_OMEGA) * by_slot[1]
    if mantissa_bits <= half.FLOAT16_BITS:
        one, none = np.float32(1), np.float32(0)
        V = np.array([half.rounded_entry(value, none, one, 0.0, mantissa_bits) for value in V.ravel()]).reshape(V.shape)
    return found, V.astype(np.float64) @ x.astype(np.float64)


@pytest.mark.parametrize("size", [1.0, 1e6], ids=["ordinary", "clipped"])
@pytest.mark.parametrize("mantissa_bits", [7, 10, 23])
@pytest.mark.parametrize("corrected", [False, True], ids=["centres", "corrections"])
def test_no_score_is_above_its_bound(corrected: bool, mantissa_bits: int, size: float) -> None:
    for seed in range(20):
        bound, score = bounds_and_scores(seed, corrected, mantissa_bits, size)
        assert (bound >= score).all(), f"seed {seed}"
        if size == 1:
            assert (bound - score).mean() < 1  # of scores up to some 2: a bound that bounds nothing is of no use

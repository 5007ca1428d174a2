"""Upper bounds of scores: sums over a row's rare features are exact, those over its hot ones from 8 bits (`sketch`).

What the 8 bits may be off by, and what float32 sums are, is added: no score is above its bound (`reach_of`).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prototide.core.compiling import kernel
from prototide.core.engines.half import FLOAT16_BITS, HIGHEST
from prototide.core.engines.sketch import LARGEST
from prototide.core.engines.tables import ACTIVE, Floats, Ints

BLOCK = 64  # slots of which the highest bound is kept
NEVER = np.float32(-1e30)  # bound of a slot that is no active prototype's
ALWAYS = np.float32(1e30)  # bound of a slot that must be completed
EPSILON = 1.2e-7  # of float32
VANISHED = np.float32(1e-30)  # what products too small for a float32 may add up to
APPROXIMATE = {"contract", "reassoc", "nsz", "nnan", "ninf"}  # sums that only bound: in any order


@kernel()
def reach_of(warm_x: Floats, size: int, mantissa_bits: int) -> tuple[float, float]:
    """(reach, slack): what a bound adds per step for the rounding to 8 bits, and per unit of a sum of ``size`` terms.

    A sum of n float32 terms is off by at most n 2^-24 sum |term|, on either way to the score. Half precision rounds
    an entry, at most `LARGEST` steps, by a part of 2^-mantissa_bits / 2.
    """
    total = 0.0
    for i in range(warm_x.size):
        total += abs(warm_x[i])
    halving = LARGEST * 2.0**-mantissa_bits if mantissa_bits <= FLOAT16_BITS else 0.0
    return 0.5 * total * (1 + halving) * (1 + 1e-4 * size), (size + 8) * EPSILON


@kernel(fastmath=APPROXIMATE)
def add_near(near: NDArray[np.int8], warm: Ints, warm_x: Floats, total: Floats) -> None:
    """total[p] <- sum over hot features h of x_h near[h, p]"""
    total[:] = 0
    used, fours = total.size, warm.size // 4 * 4
    for i in range(0, fours, 4):
        a, b, c, d = near[warm[i]], near[warm[i + 1]], near[warm[i + 2]], near[warm[i + 3]]
        u, v = np.float32(warm_x[i]), np.float32(warm_x[i + 1])
        w, z = np.float32(warm_x[i + 2]), np.float32(warm_x[i + 3])
        for p in range(used):
            total[p] += (u * np.float32(a[p]) + v * np.float32(b[p])) + (w * np.float32(c[p]) + z * np.float32(d[p]))
    for i in range(fours, warm.size):
        a, u = near[warm[i]], np.float32(warm_x[i])
        for p in range(used):
            total[p] += u * np.float32(a[p])


@kernel(fastmath=APPROXIMATE)
def of_centres(
    sum_M: Floats, near: Floats, step: Floats, scale: Floats, reach: float, slack: float, kind: NDArray[np.int8],
    bound: Floats,
) -> None:  # fmt: skip
    """bound[p] <- upper bound of the score without corrections. ``reach``, ``slack``: see `reach_of`."""
    more, relative = np.float32(reach), np.float32(slack)
    for p in range(bound.size):
        size = np.float32(scale[p])
        rare = size * np.float32(sum_M[p])
        upper = rare + size * step[p] * (near[p] + more) + relative * abs(rare)
        bound[p] = upper + VANISHED if kind[p] == ACTIVE else NEVER


@kernel(fastmath=APPROXIMATE)
def of_both(
    sum_M: Floats, near: Floats, sum_R: Floats, push: Floats, step_M: Floats, step_R: Floats, scale: Floats,
    per_omega: float, reach: float, slack: float, kind: NDArray[np.int8], bound: Floats,
) -> None:  # fmt: skip
    """The same with corrections."""
    more, relative, part = np.float32(reach), np.float32(slack), np.float32(per_omega)
    for p in range(bound.size):
        size = np.float32(scale[p])
        rare, other = size * np.float32(sum_M[p]), part * np.float32(sum_R[p])
        upper = rare + size * step_M[p] * (near[p] + more) + other + part * step_R[p] * (push[p] + more)
        upper += relative * (abs(rare) + abs(other))
        bound[p] = upper + VANISHED if kind[p] == ACTIVE else NEVER


@kernel(fastmath=APPROXIMATE)
def of_rounded(
    sum_V: Floats, near: Floats, push: Floats, step_M: Floats, step_R: Floats, scale: Floats, per_omega: float,
    mantissa_bits: int, reach: float, slack: float, kind: NDArray[np.int8], bound: Floats,
) -> None:  # fmt: skip
    """The same in half precision, with corrections or (``push`` empty) without.

    Clipping may raise a score: a slot that may hold a clipped entry is always completed.
    """
    more, relative, part = np.float32(reach), np.float32(slack), np.float32(per_omega)
    highest = HIGHEST / np.float32(LARGEST) if mantissa_bits == FLOAT16_BITS else ALWAYS  # steps
    for p in range(bound.size):
        upper = sum_V[p] + scale[p] * step_M[p] * (near[p] + more) + relative * abs(sum_V[p])
        if push.size > 0:
            upper += part * step_R[p] * (push[p] + more)
            if scale[p] * step_M[p] + part * step_R[p] > highest:
                upper = ALWAYS
        bound[p] = upper + more * EPSILON + VANISHED if kind[p] == ACTIVE else NEVER  # float16's smallest step: 2^-24


@kernel(fastmath=APPROXIMATE)
def highest_of_blocks(bound: Floats, highest: Floats) -> None:
    """highest[b] <- the highest bound of each `BLOCK` slots."""
    for b in range(highest.size):
        most, block = NEVER, bound[b * BLOCK : b * BLOCK + BLOCK]
        for p in range(block.size):
            most = block[p] if block[p] > most else most
        highest[b] = most


@kernel()
def upper_product(p: int, total: Floats, near: Floats, step: Floats, scale: float, reach: float, slack: float) -> float:
    """Upper bound of scale * product of slot p."""
    return scale * (total[p] + step[p] * (near[p] + reach) + slack * (abs(total[p]) + abs(step[p] * near[p]))) + slack


@kernel()
def upper_correction(
    p: int, next_slot: Ints, kind: NDArray[np.int8], sum_R: Floats, push: Floats, step_R: Floats, per_omega: float,
    reach: float, slack: float,
) -> float:  # fmt: skip
    """Upper bound of the corrections of a class's prototypes, the first of which is in slot p."""
    highest = -np.inf
    while p >= 0:
        if kind[p] == ACTIVE:
            highest = max(highest, upper_product(p, sum_R, push, step_R, per_omega, reach, slack))
        p = next_slot[p]
    return highest

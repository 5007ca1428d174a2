"""Products with the vectors that score, V_p = tau M_p / |M_p| + R_p / omega, rounded to half precision.

The index has M and R, in float32; V is rounded entry by entry while it is added up, in the order of the other sums.
"""

from __future__ import annotations

import numpy as np

from prototide.core.compiling import kernel
from prototide.core.engines.tables import Floats, Ints, Longs

FLOAT16_BITS = 10  # of its mantissa; bfloat16 has 7, all other formats more
SMALLEST = np.float32(2.0**-14)  # below, float16 is a multiple of 2^-24, as float32 is between a half and one
THREE_QUARTERS = np.float32(0.75)
HIGHEST = np.float32(65504)  # of float16: what is beyond is clipped


@kernel()
def rounded_entry(M: float, R: float, scale: float, per_omega: float, mantissa_bits: int) -> np.float32:
    """One entry of V, ties to even, float16 clipped."""
    value = np.float32(scale * M + np.float32(per_omega) * R)
    if mantissa_bits == FLOAT16_BITS:
        if abs(value) < SMALLEST:
            return (value + THREE_QUARTERS) - THREE_QUARTERS
        if abs(value) > HIGHEST:
            return np.copysign(HIGHEST, value)
    drop = np.uint32(23 - mantissa_bits)
    bits = value.view(np.uint32)
    bits += (np.uint32(1) << (drop - np.uint32(1))) - np.uint32(1) + ((bits >> drop) & np.uint32(1))
    return np.uint32((bits >> drop) << drop).view(np.float32)


@kernel()
def add_rare(
    ix: Ints, x: Floats, start: Longs, length: Ints, slot: Ints, M: Floats, R: Floats, scale: Floats,
    per_omega: float, mantissa_bits: int, sum_V: Floats,
) -> None:  # fmt: skip
    """sum_V[p] <- the rare features' part of one row's product with every slot."""
    sum_V[:] = 0
    nothing = R.dtype.type(0)
    for i in range(ix.size):
        j = ix[i]
        if j < start.size:
            weight = M.dtype.type(x[i])
            for k in range(start[j], start[j] + length[j]):
                p, r = slot[k], R[k] if R.size > 0 else nothing
                sum_V[p] += weight * rounded_entry(M[k], r, scale[p], per_omega, mantissa_bits)


@kernel()
def add_hot(
    ix: Ints, x: Floats, hot: Ints, hot_M: Floats, hot_R: Floats, tile: int, scale: Floats, per_omega: float,
    mantissa_bits: int, sum_V: Floats,
) -> None:  # fmt: skip
    """sum_V[p] += the hot features' part, for the slots of one tile; scale and sum_V are those slots'."""
    nothing = hot_R.dtype.type(0)
    for i in range(ix.size):
        j = ix[i]
        if j < hot.size and hot[j] >= 0:
            weight, h = hot_M.dtype.type(x[i]), hot[j]
            for p in range(sum_V.size):
                r = hot_R[tile, h, p] if hot_R.size > 0 else nothing
                sum_V[p] += weight * rounded_entry(hot_M[tile, h, p], r, scale[p], per_omega, mantissa_bits)

"""The vectors that score, V_p = tau M_p / |M_p| + R_p / omega, in the format that scores, laid out for the kernels.

Features that many prototypes have are hot: their part of all vectors is one dense matrix (hot features, slots), for
the tensor cores. The others are lists (slot, value) by feature. So nothing is as large as prototypes x features, and
what a row asks for is a dense product of some hundred features and a few short lists.

The product's factors are float16, scaled by powers of two, its sums float32. So bfloat16's V is exact (but for values
below 2^-31 of the largest), and x has an eighth of the error that bfloat16 makes in V. For V in float16, x is split
into two halves that are both multiplied; for V in float32, V is split too, and the small halves' product left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from prototide.core.engines.gpu import kernels
from prototide.core.engines.gpu.entries import SLOT_MASK, Entries, roomy
from prototide.core.engines.gpu.scoring import STORED, Roster
from prototide.core.engines.gpu.vector_layout import COPIES, HOT_SHARE, HOT_STEP, MOST_HOT, PRODUCT_SCALE, SLOT_STEP
from prototide.core.engines.tables import Rule


@dataclass(frozen=True)
class Vectors:
    """All vectors; tensors on the device."""

    hot: Tensor  # (H,) feature, -1 fills up
    hot_of: Tensor  # (features,) int32 which of the hot ones, -1 for none
    begin: Tensor  # (features + 1,) where a feature's entries begin
    slot: Tensor  # (entries,) int32
    value: Tensor  # (entries,)
    dense: Tensor  # (COPIES H, width) float16: V; V and V; or V's large half, its small half, its large half
    exponent: Tensor  # () int32: no |value| is above 2^exponent
    active: Tensor  # (width / 32,) int32, a bit for each slot that plays
    cls: Tensor  # (width,) int32
    members: Tensor  # (classes, most of one class) int32: its active slots

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(t.numel() * t.element_size() for t in vars(self).values())

    @property
    def plays(self) -> Tensor:
        """(width,) flags"""
        bit = torch.arange(32, device=self.active.device, dtype=torch.int32)
        return ((self.active[:, None] >> bit) & 1).view(-1) > 0


def hot_features(begin: Tensor, slots: int) -> Tensor:
    """The features with the longest lists, as many as are long enough; -1 fills up to whole tiles."""
    length = torch.diff(begin)
    longest, feature = torch.topk(length, min(MOST_HOT, length.numel()))
    hot = feature[longest > max(1.0, HOT_SHARE * slots)].sort().values
    size = max(HOT_STEP, triton.cdiv(hot.numel(), HOT_STEP) * HOT_STEP)
    return torch.nn.functional.pad(hot, (0, size - hot.numel()), value=-1)


def packed(entries: Entries, scale: Tensor, omega: float, stored: torch.dtype) -> tuple[Tensor, Tensor]:
    """(slot, value) of every entry. The reference of the kernel."""
    slot = (entries.key & SLOT_MASK).int()
    return slot, (entries.M * scale[slot] + entries.R / omega).to(stored)


def dense_of(vectors: Vectors, copies: int) -> Tensor:
    """(copies H, width) the hot features' part of the vectors. The reference of the kernel."""
    scale = PRODUCT_SCALE / 2.0 ** int(vectors.exponent)
    dense = torch.zeros(vectors.hot.numel(), vectors.cls.numel(), device=vectors.dense.device)
    for h, j in enumerate(vectors.hot.tolist()):
        if j >= 0:
            inside = slice(int(vectors.begin[j]), int(vectors.begin[j + 1]))
            dense[h, vectors.slot[inside].long()] = vectors.value[inside].float() * scale
    large = dense.half()
    small = (dense - large.float()).half()
    return torch.cat({1: [large], 2: [large, large], 3: [large, small, large]}[copies])


def vectors_of(
    entries: Entries, roster: Roster, features: int, omega: float, rule: Rule, hot: Tensor | None
) -> Vectors:
    """The vectors of all entries; ``hot``: as chosen before, or None."""
    device, count = entries.key.device, entries.key.numel()
    width = max(SLOT_STEP, triton.cdiv(roster.used, SLOT_STEP) * SLOT_STEP)
    begin = torch.searchsorted(entries.key, torch.arange(features + 1, device=device) << 32)
    if hot is None:
        hot = hot_features(begin, roster.used)
    hot_of = torch.full((features + 1,), -1, dtype=torch.int32, device=device)
    hot_of[hot] = torch.arange(hot.numel(), dtype=torch.int32, device=device)  # -1 writes the last, which is no feature
    slot = roomy(torch.empty(0, dtype=torch.int32, device=device), count)
    value = roomy(torch.empty(0, dtype=STORED[rule.mantissa_bits], device=device), count)
    largest = torch.zeros((), dtype=torch.int32, device=device)  # its bits, as an int, order as the float does
    copies = COPIES[rule.mantissa_bits]
    dense = torch.zeros(copies * hot.numel(), width, dtype=torch.float16, device=device)
    if count:
        kernels.pack[(triton.cdiv(count, 1024),)](
            entries.key, entries.M, entries.R, (rule.tau * roster.scale).float(), slot, value, largest, count,
            torch.full((), omega, dtype=torch.float32, device=device), BLOCK=1024,
        )  # fmt: skip
    exponent = torch.frexp(largest.view(torch.float32)).exponent
    if count:
        kernels.fill_hot[(hot.numel(),)](
            hot, begin, slot, value, exponent, dense, width, hot.numel(), COPIES=copies, BLOCK=1024
        )
    pad = (0, width - roster.used)
    bits = torch.nn.functional.pad(roster.kind == 1, pad).view(-1, 32).int() << torch.arange(32, device=device)
    return Vectors(
        hot, hot_of[:-1], begin, slot, value, dense, exponent, bits.sum(1).int(),
        torch.nn.functional.pad(roster.cls.int(), pad), roster.members.int(),
    )  # fmt: skip

"""The vectors that score, V_p = tau M_p / |M_p| + R_p / omega, in the format that scores, laid out for the kernels.

Features that many prototypes have are hot: their part of all vectors is one dense matrix (hot features, slots), for
the tensor cores. The others are lists (slot, value) by feature. So nothing is as large as prototypes x features, and
what a row asks for is a dense product of some hundred features and a few short lists.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from prototide.core.engines.gpu import kernels
from prototide.core.engines.gpu.entries import SLOT_MASK, Entries
from prototide.core.engines.gpu.scoring import STORED, Roster
from prototide.core.engines.gpu.vector_layout import HOT_SHARE, HOT_STEP, MOST_HOT, SLOT_STEP
from prototide.core.engines.tables import Rule


@dataclass(frozen=True)
class Vectors:
    """All vectors; tensors on the device."""

    hot: Tensor  # (H,) feature, -1 fills up
    hot_of: Tensor  # (features,) int32 which of the hot ones, -1 for none
    begin: Tensor  # (features + 1,) where a feature's entries begin
    slot: Tensor  # (entries,) int32
    value: Tensor  # (entries,)
    dense: Tensor  # (H, width) width: slots, rounded up
    largest: Tensor  # () of all absolute values
    bench: Tensor  # (width,) 0 for active slots, -inf for others
    cls: Tensor  # (width,) int32

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(t.numel() * t.element_size() for t in vars(self).values())


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


def dense_of(hot: Tensor, begin: Tensor, slot: Tensor, value: Tensor, width: int) -> Tensor:
    """(H, width) the hot features' part of the vectors. The reference of the kernel."""
    dense = value.new_zeros(hot.numel(), width)
    for h, j in enumerate(hot.tolist()):
        if j >= 0:
            inside = slice(int(begin[j]), int(begin[j + 1]))
            dense[h, slot[inside].long()] = value[inside]
    return dense


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
    slot = torch.empty(count, dtype=torch.int32, device=device)
    value = torch.empty(count, dtype=STORED[rule.mantissa_bits], device=device)
    scale = (rule.tau * roster.scale).float()
    dense = torch.zeros(hot.numel(), width, dtype=value.dtype, device=device)
    if count:
        kernels.pack[(triton.cdiv(count, 1024),)](
            entries.key, entries.M, entries.R, scale, slot, value, count,
            torch.full((), omega, dtype=torch.float32, device=device), BLOCK=1024,
        )  # fmt: skip
        kernels.fill_hot[(hot.numel(),)](hot, begin, slot, value, dense, width, BLOCK=1024)
    pad = (0, width - roster.used)
    bench = torch.where(roster.kind == 1, 0.0, -torch.inf).float()
    return Vectors(
        hot, hot_of[:-1], begin, slot, value, dense,
        value.abs().amax().float() if count else torch.ones((), device=device),
        torch.nn.functional.pad(bench, pad, value=-torch.inf), torch.nn.functional.pad(roster.cls.int(), pad),
    )  # fmt: skip

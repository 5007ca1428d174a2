"""Sums that do not depend on the order of their terms, so that a device gives the same bytes twice.

On an accelerator the terms of a scattered sum arrive in any order, and floating-point addition is not associative.
Integer addition is: the terms are rounded to multiples of a power of two that leaves room for all of them in 62 bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

BITS = 61


def wide_type(device: torch.device) -> torch.dtype:
    """The precision of norms, masses and statistics there: double, where the device knows it."""
    return torch.float32 if device.type == "mps" else torch.float64


def sums_by(values: Tensor, index: Tensor, size: int) -> Tensor:
    """(size, ...) sums of the ``values`` (m, ...) with the same ``index`` (m,), in the widest type."""
    wide = wide_type(values.device)
    out = torch.zeros((size, *values.shape[1:]), dtype=wide, device=values.device)
    if not values.numel():
        return out
    if (
        values.device.type == "cpu" or wide == torch.float32
    ):  # in order there; elsewhere no integers that are wide enough
        return out.index_add_(0, index, values.to(wide))
    largest = torch.frexp(values.abs().amax().to(wide)).exponent
    shift = BITS - values.shape[0].bit_length() - largest
    whole = torch.ldexp(values.to(wide), shift).round_().to(torch.int64)
    total = torch.zeros(out.shape, dtype=torch.int64, device=values.device).index_add_(0, index, whole)
    return torch.ldexp(total.to(wide), -shift)


def ranges(start: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """For every list start..start + length - 1, one after the other: (which list, position)."""
    which = torch.repeat_interleave(torch.arange(length.numel(), device=length.device), length)
    begin = torch.cumsum(length, 0) - length
    return which, torch.arange(which.numel(), device=length.device) + (start - begin)[which]

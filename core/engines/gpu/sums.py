"""Sums that do not depend on the order of their terms, so that a device gives the same bytes twice.

On an accelerator the terms of a scattered sum arrive in any order, and floating-point addition is not associative.
Integer addition is: the terms are rounded to multiples of a power of two that leaves room for all of them in 62 bits.
With forgetting, old prototypes are smaller than young ones by many powers of ten: each sum has a unit of its own.
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
    if values.device.type == "cpu" or wide == torch.float32:  # one after the other there; here no wide integers
        out = torch.zeros((size, *values.shape[1:]), dtype=wide, device=values.device)
        return out.index_add_(0, index, values.to(wide))
    return whole_sums(values, index, size)


def whole_sums(values: Tensor, index: Tensor, size: int) -> Tensor:
    """`sums_by` in whole numbers, float64: any order gives the same."""
    total = torch.zeros((size, *values.shape[1:]), dtype=torch.int64, device=values.device)
    if not values.numel():
        return total.double()
    exponent = torch.where(values != 0, torch.frexp(values.double()).exponent, -1000)
    at = index.view(-1, *(1,) * (values.dim() - 1)).expand_as(values)
    largest = torch.full_like(total, -1000, dtype=torch.int32).scatter_reduce_(0, at, exponent, "amax")
    shift = (BITS - values.shape[0].bit_length() - largest).clamp(-1000, 1000).to(torch.int64)
    whole = (values.double() * power_of_two(shift)[index]).round_().to(torch.int64)
    return total.index_add_(0, index, whole).double() * power_of_two(-shift)


def alike_sums(values: Tensor, index: Tensor, size: int) -> Tensor:
    """`sums_by` with one unit for all sums: for terms of one size."""
    if values.device.type != "cuda" or not values.numel():
        return sums_by(values, index, size)
    total = torch.zeros((size, *values.shape[1:]), dtype=torch.int64, device=values.device)
    largest = torch.frexp(values.abs().amax()).exponent
    shift = (BITS - values.shape[0].bit_length() - largest).clamp(-1000, 1000).to(torch.int64)
    whole = (values.double() * power_of_two(shift)).round_().to(torch.int64)
    return total.index_add_(0, index, whole).double() * power_of_two(-shift)


def squares_by(values: Tensor, index: Tensor, most: Tensor) -> Tensor:
    """(size,) sums of the squares of ``values`` (m,) with the same ``index``; ``most``: (size,) none is much larger."""
    if values.device.type != "cuda":
        return sums_by(values.to(wide_type(values.device)) ** 2, index, most.numel())
    shift = (BITS - 4 - torch.frexp(most.double()).exponent).clamp(-1000, 1000).to(torch.int64)
    whole = (values.double().square() * power_of_two(shift)[index]).round_().to(torch.int64)
    total = torch.zeros(most.numel(), dtype=torch.int64, device=values.device).index_add_(0, index, whole)
    return total.double() * power_of_two(-shift)


def power_of_two(exponent: Tensor) -> Tensor:
    """2^exponent (int64), exactly, which a device's ``pow`` does not promise: a float64 of that exponent."""
    return ((exponent + 1023) << 52).view(torch.float64)


def ranges(start: Tensor, length: Tensor, total: int | None = None) -> tuple[Tensor, Tensor]:
    """For every list start..start + length - 1, one after the other: (which list, position).

    ``total``: of the lengths, where the host knows it and need not wait for the device.
    """
    which = torch.repeat_interleave(torch.arange(length.numel(), device=length.device), length, output_size=total)
    begin = torch.cumsum(length, 0) - length
    return which, torch.arange(which.numel(), device=length.device) + (start - begin)[which]

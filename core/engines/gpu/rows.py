"""Rows on the device, and how they get there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prototide.core.rows import CsrRows


@dataclass(frozen=True)
class DeviceRows:
    """`CsrRows` whose arrays lie on a device. ``indptr`` may begin anywhere; parts share the arrays."""

    indptr: Tensor  # (count + 1,) int64
    indices: Tensor  # (non-zeros,) int32
    data: Tensor  # (non-zeros,) float32 or float64
    width: int
    ends: NDArray[np.int64]  # indptr, on the host

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.indptr.numel() - 1

    def part(self, first: int, last: int) -> DeviceRows:
        """Rows first..last - 1, a view."""
        begin, end = int(self.ends[first]), int(self.ends[last])
        ends = self.ends[first : last + 1] - begin
        return DeviceRows(
            self.indptr[first : last + 1] - begin, self.indices[begin:end], self.data[begin:end], self.width, ends
        )

    @property
    def row(self) -> Tensor:
        """(non-zeros,) the row of each non-zero."""
        each = torch.arange(self.count, device=self.indptr.device)
        return torch.repeat_interleave(each, torch.diff(self.indptr), output_size=self.indices.numel())


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """A copy there; from page-locked memory, so that the copy runs beside the device's work."""
    tensor = torch.from_numpy(np.array(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)


def upload(rows: CsrRows | DeviceRows, device: torch.device, real: torch.dtype) -> DeviceRows:
    """The rows there, in the engine's precision; rows that are there already stay."""
    if isinstance(rows, DeviceRows):
        return rows
    data = rows.data.astype(np.float64 if real == torch.float64 else np.float32)
    return DeviceRows(
        to_device(rows.indptr, device), to_device(rows.indices, device), to_device(data, device), rows.width,
        rows.indptr,
    )  # fmt: skip

"""Rows on the device, and how they get there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prototide.core.rows import CsrRows


@dataclass(frozen=True)
class DeviceRows:
    """`CsrRows` whose arrays lie on a device; parts share the arrays."""

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
        indptr = self.indptr[first : last + 1]
        return DeviceRows(indptr - begin, self.indices[begin:end], self.data[begin:end], self.width, ends)

    @property
    def row(self) -> Tensor:
        """(non-zeros,) the row of each non-zero."""
        each = torch.arange(self.count, device=self.indptr.device)
        return torch.repeat_interleave(each, torch.diff(self.indptr), output_size=self.indices.numel())


def to_device(array: NDArray[Any], device: torch.device, dtype: type[np.generic] | None = None) -> Tensor:
    """A copy there. For CUDA through page-locked memory: the host goes on while it is on its way."""
    kind = np.dtype(dtype or array.dtype)
    if device.type == "mps" and kind == np.float64:
        kind = np.dtype(np.float32)  # it knows no other
    staged = torch.empty(array.shape, dtype=_TORCH[kind], pin_memory=device.type == "cuda")
    staged.numpy()[...] = array
    return staged.to(device, non_blocking=True)


def together(arrays: Sequence[NDArray[Any]], device: torch.device) -> list[Tensor]:
    """Copies of arrays of int64 and float64 there; for CUDA in one copy, each at a multiple of 16 bytes."""
    if device.type != "cuda":
        return [to_device(array, device) for array in arrays]
    begin = np.cumsum([0] + [array.size + array.size % 2 for array in arrays]).tolist()
    staged = torch.empty(begin[-1], dtype=torch.int64, pin_memory=True)
    for first, array in zip(begin, arrays, strict=False):
        staged.numpy()[first : first + array.size] = np.ascontiguousarray(array).view(np.int64).ravel()
    there = staged.to(device, non_blocking=True)
    return [
        there[first : first + array.size].view(_TORCH[array.dtype]).view(array.shape)
        for first, array in zip(begin, arrays, strict=False)
    ]


def to_host(there: Tensor) -> NDArray[Any]:
    """A copy here. From CUDA into page-locked memory, twice as fast."""
    if there.device.type != "cuda":
        return there.cpu().numpy()
    here = torch.empty(there.shape, dtype=there.dtype, pin_memory=True)
    here.copy_(there, non_blocking=True)
    torch.cuda.current_stream(there.device).synchronize()
    return here.numpy()


_TORCH = {
    np.dtype(name): getattr(torch, name) for name in ("int8", "int32", "int64", "float32", "float64", "bool")
}  # fmt: skip


def upload(rows: CsrRows | DeviceRows, device: torch.device, real: torch.dtype) -> DeviceRows:
    """The rows there, in the engine's precision; rows that are there already stay."""
    if isinstance(rows, DeviceRows):
        return rows
    return DeviceRows(
        to_device(rows.indptr, device), to_device(rows.indices, device),
        to_device(rows.data, device, np.float64 if real == torch.float64 else np.float32), rows.width, rows.indptr,
    )  # fmt: skip


def uploads(
    parts: Iterable[CsrRows | DeviceRows], device: torch.device, real: torch.dtype
) -> Iterator[DeviceRows]:  # fmt: skip
    """Each part there. On CUDA the next part's copy runs on a stream of its own beside the work on the last."""
    if device.type != "cuda":
        yield from (upload(part, device, real) for part in parts)
        return
    stream: Any = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    ahead = None
    for part in parts:
        with torch.cuda.stream(stream):
            coming = upload(part, device, real), stream.record_event()
        if ahead is not None:
            yield _arrived(*ahead)
        ahead = coming
    if ahead is not None:
        yield _arrived(*ahead)


def _arrived(rows: DeviceRows, copied: torch.cuda.Event) -> DeviceRows:
    """The rows, safe for what the current stream does next."""
    current = torch.cuda.current_stream(rows.indptr.device)
    current.wait_event(copied)
    for array in (rows.indptr, rows.indices, rows.data):
        array.record_stream(current)
    return rows

"""CUDA C++ for the one thing that Triton has no word for: additions in a multiprocessor's shared memory.

NVRTC comes with torch for CUDA; it compiles at first use, in a fraction of a second. Source: NVIDIA's manuals of NVRTC
and of the CUDA driver API.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor

MOST_SHARED = 8  # the driver's name of a function's attribute: the most shared memory that it may ask for


@cache
def _libraries() -> tuple[ctypes.CDLL, ctypes.CDLL | None]:
    """NVRTC and the driver; OSError without NVRTC. The driver is None on a machine without it."""
    major = (torch.version.cuda or "none").split(".")[0]
    nvrtc = ctypes.CDLL(f"libnvrtc.so.{major}")
    try:
        return nvrtc, ctypes.CDLL("libcuda.so.1")
    except OSError:
        return nvrtc, None


def available() -> bool:
    """Whether CUDA C++ can be compiled here."""
    try:
        _libraries()
    except OSError:
        return False
    return True


def compiled(source: str, architecture: str, *options: str) -> bytes:
    """The machine code of ``source`` for ``architecture`` ("sm_90"). RuntimeError with the compiler's log."""
    nvrtc, program = _libraries()[0], ctypes.c_void_p()
    every = [f"--gpu-architecture={architecture}".encode(), *(option.encode() for option in options)]
    nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"kernel.cu", 0, None, None)
    try:
        if nvrtc.nvrtcCompileProgram(program, len(every), (ctypes.c_char_p * len(every))(*every)):
            raise RuntimeError(f"NVRTC cannot compile a kernel:\n{_read(nvrtc, 'ProgramLog', program).decode()}")
        return _read(nvrtc, "CUBIN", program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _read(nvrtc: ctypes.CDLL, what: str, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, text)
    return text.raw


class Kernel:
    """A function of CUDA C++ on one device, with up to ``shared_bytes`` of shared memory a block."""

    def __init__(self, source: str, name: str, device: torch.device, shared_bytes: int, *options: str) -> None:
        major, minor = torch.cuda.get_device_capability(device)
        code, driver = compiled(source, f"sm_{major}{minor}", *options), _libraries()[1]
        assert driver is not None  # there is a device
        self._driver, self._module, self._function = driver, ctypes.c_void_p(), ctypes.c_void_p()
        with torch.cuda.device(device):
            torch.cuda.current_stream().synchronize()  # makes the device's context the current one
            self._call("cuModuleLoadData", ctypes.byref(self._module), code)
            self._call("cuModuleGetFunction", ctypes.byref(self._function), self._module, name.encode())
            self._call("cuFuncSetAttribute", self._function, MOST_SHARED, shared_bytes)

    def _call(self, name: str, *arguments: Any) -> None:
        failed = getattr(self._driver, name)(*arguments)
        if failed:
            raise RuntimeError(f"CUDA driver: {name} failed with error {failed}")

    def launch(self, grid: tuple[int, int], threads: int, shared_bytes: int, arguments: Sequence[Tensor | int]) -> None:
        """On the current stream of the current device; tensors are passed as pointers, integers as int."""
        values: list[Any] = [
            ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else ctypes.c_int(a) for a in arguments
        ]
        pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
        stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
        self._call("cuLaunchKernel", self._function, *grid, 1, threads, 1, 1, shared_bytes, stream, pointers, None)

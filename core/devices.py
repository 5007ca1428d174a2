"""Where a model can compute."""

from __future__ import annotations

from typing import Any

ACCELERATORS = ("cuda", "mps", "xpu")


def checked_device(device: Any, dtype: str) -> str:
    """The device's name, "cpu", "cuda", "cuda:1", ...; ValueError when this machine has none such."""
    name = str(device)
    kind, _, number = name.partition(":")
    if name == "cpu":
        return name
    if kind not in ACCELERATORS or (number and not number.isdigit()):
        raise ValueError(
            f"device={name!r} is not allowed: it must be 'cpu', or one of {', '.join(ACCELERATORS)}, as 'cuda:1'"
        )
    try:
        import torch
    except ImportError:
        raise ValueError(f"device={name!r} needs torch: pip install 'prototide[torch]'") from None
    backend = getattr(torch, kind, None)
    if backend is None or not backend.is_available():
        raise ValueError(f"device={name!r} is not there: torch {torch.__version__} finds no such device; use 'cpu'")
    if number and int(number) >= backend.device_count():
        raise ValueError(f"device={name!r} is not there: torch finds {backend.device_count()} of {kind!r}, from 0 on")
    if kind == "mps" and dtype == "float64":
        raise ValueError("dtype='float64' is not allowed on 'mps', which has no such numbers: use 'float32'")
    return name

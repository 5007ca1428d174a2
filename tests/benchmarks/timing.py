"""How the speed benchmarks take time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np


def rate(work: Callable[[], Any], rows: int, repeats: int = 3) -> float:
    """Median rows/s of ``repeats`` calls, after one that warms up."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return rows / float(np.median(seconds))


def median_ms(work: Callable[[int], Any], times: int) -> float:
    """Median milliseconds of a call."""
    seconds = []
    for i in range(times):
        started = time.perf_counter()
        work(i)
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds))

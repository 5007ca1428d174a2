"""How many threads a piece of work deserves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numba

PARALLEL_ROWS = 32
PARALLEL_WORK = 50_000  # rows x slots


@contextmanager
def threads_for(rows: int, slots: int) -> Iterator[None]:
    """One thread for little work: waking the others would take longer, above all on busy cores."""
    allowed = numba.get_num_threads()
    if rows < PARALLEL_ROWS or rows * slots < PARALLEL_WORK:
        numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(allowed)

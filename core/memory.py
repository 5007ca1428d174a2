"""Out of memory while growing: a batch is refused before anything changes, so that the model stays as it was.

Learning writes to the model in place; an allocation that failed half-way would leave half a batch in it. So the most
that a batch may need is asked of the system first and given back at once. Where the system promises more than it has
(Linux without a limit), it never refuses: there `memory_budget_bytes` is what keeps a model within bounds.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

CHANGE_BYTES = 64  # of an entry that a row may bring: in its list, in the room of the list, in what plans it
COPIES = 2  # of the model's arrays, while lists move, tables grow or holes are taken out
ROW_BYTES = 4096  # of a row, its labels, its ranking, its decisions


def most_bytes(*, model_bytes: int, scratch_bytes: int, rows: int, non_zeros: int, changes: int) -> int:
    """Upper bound of what learning may allocate. ``changes``: prototypes that a row may change."""
    return COPIES * model_bytes + scratch_bytes + rows * ROW_BYTES + non_zeros * changes * CHANGE_BYTES


def ensure(needed: int, held: Callable[[], int], rows: int) -> None:
    """Raises MemoryError with the numbers if ``needed`` bytes cannot be had now. ``held``: bytes of the model."""
    try:
        np.empty(needed, np.uint8)
    except MemoryError:
        raise MemoryError(
            f"no memory for a batch of {rows} rows: learning it may take up to {needed} bytes more, the model has "
            f"{held()} bytes. Nothing of the batch was learned, the model is unchanged. Pass fewer rows at a time,"
            " let the process have more memory, or bound the model with memory_budget_bytes"
        ) from None

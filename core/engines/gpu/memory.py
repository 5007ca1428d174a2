"""What a model needs of a device's memory, told before anything is allocated."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from prototide.core.engines.gpu.vector_layout import COPIES, MOST_HOT, ROWS_AT_ONCE, SLOT_STEP, SLOTS_AT_ONCE
from prototide.core.engines.tables import Rule

KEY, INDEX, WIDE, PRODUCT_BYTES = 8, 4, 8, 2  # bytes
SPARE = 1 << 28  # what the device's libraries take for themselves


@dataclass(frozen=True)
class Need:
    """Bytes by purpose."""

    entries: int  # M, R and mutual information of all prototypes
    vectors: int  # what scores
    statistics: int  # per feature
    buffers: int  # scores of a chunk of rows and their factor; the second copy of what is merged; a group's tables

    @property
    def total(self) -> int:
        """Bytes of all."""
        return self.entries + self.vectors + self.statistics + self.buffers

    def __str__(self) -> str:
        parts = ", ".join(f"{name} {size / 1e9:.2f}" for name, size in vars(self).items())
        return f"{self.total / 1e9:.2f} GB ({parts})"


def need(slots: int, features: int, entries: int, new: int, together: int, rule: Rule) -> Need:
    """What learning and scoring take at most. ``new``: entries that a batch may bring, ``together`` of one group."""
    stored = {7: 2, 10: 2, 23: 4, 52: 8}[rule.mantissa_bits]
    real = 8 if rule.mantissa_bits == 52 else 4
    width = -(-slots // SLOT_STEP) * SLOT_STEP
    each, after = KEY + (3 if rule.pmi > 0 else 2) * real, (entries + new) * 9 // 8  # see `entries.roomy`
    copies = COPIES.get(rule.mantissa_bits, 0)
    factor = ROWS_AT_ONCE * MOST_HOT * PRODUCT_BYTES * copies
    return Need(
        entries=after * each,
        vectors=after * (INDEX + stored) + MOST_HOT * width * PRODUCT_BYTES * copies,
        statistics=features * (4 * WIDE + INDEX),
        buffers=2 * SLOTS_AT_ONCE * INDEX + factor + after * each + together * 16 * KEY,
    )


def check(device: torch.device, wanted: Need, held: int, what: str) -> None:
    """MemoryError when the device has less than is wanted; ``held``: bytes that the model has there already."""
    if device.type != "cuda":
        return
    free, total = torch.cuda.mem_get_info(device)
    reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    room = free + reusable + held - SPARE
    if wanted.total > room:
        raise MemoryError(
            f"{what} may need {wanted} on {device}, where {max(0, room) / 1e9:.2f} of {total / 1e9:.2f} GB are free: "
            "pass fewer rows at a time, "
            "hash to fewer features, lower k_init, raise truncation_threshold or min_weight, or use device 'cpu'"
        )

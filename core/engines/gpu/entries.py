"""The prototypes' entries on the device: one array of keys (feature, slot), ascending, with M and R beside it.

The content decides the arrays, never its history: what is added is merged in, what goes is squeezed out. Both pass over
all entries once (12 to 16 bytes each), which a device does in a fraction of the time that a group of rows takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prototide.core.engines.gpu.sums import alike_sums

SLOT_BITS = 32
SLOT_MASK = (1 << SLOT_BITS) - 1


def keys_of(feature: Tensor, slot: Tensor) -> Tensor:
    """The keys of entries, int64."""
    return (feature.long() << SLOT_BITS) | slot.long()


def roomy(like: Tensor, size: int) -> Tensor:
    """Empty, (size,), in a block that is up to an eighth larger: so that the next size finds the last one's block."""
    step = 1 << max(0, size.bit_length() - 4)
    return like.new_empty(-(-size // step) * step)[:size]


def moved(key: Tensor, values: list[Tensor], added: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Entries at their places among ``added`` keys, both ascending; the places of the added are left open."""
    at = torch.arange(key.numel(), device=key.device) + torch.searchsorted(added, key)
    moving = [key, *values]
    there = [roomy(old, key.numel() + added.numel()) for old in moving]
    for old, new in zip(moving, there, strict=True):
        new[at] = old
    return there[0], there[1:]


class Entries:
    """Sparse M and R of all prototypes, and how much of R is mutual information. ``real``: the precision of all."""

    def __init__(self, real: torch.dtype, device: torch.device, moved: Callable[..., Any] = moved) -> None:
        self._moved = moved
        self.key = torch.zeros(0, dtype=torch.int64, device=device)  # (entries,) ascending
        self.M = torch.zeros(0, dtype=real, device=device)  # (entries,)
        self.R = torch.zeros(0, dtype=real, device=device)  # (entries,)
        self.pmi: Tensor | None = None  # (entries,); None in a model without mutual information

    def inform(self) -> None:
        """Makes room for mutual information."""
        if self.pmi is None:
            self.pmi = torch.zeros_like(self.R)

    @property
    def values(self) -> list[Tensor]:
        """M, R and, if there is one, pmi."""
        return [self.M, self.R] if self.pmi is None else [self.M, self.R, self.pmi]

    def _set(self, key: Tensor, values: list[Tensor]) -> None:
        self.key, (self.M, self.R, *rest) = key, values
        self.pmi = rest[0] if rest else None

    @property
    def slot(self) -> Tensor:
        """(entries,)"""
        return self.key & SLOT_MASK

    @property
    def feature(self) -> Tensor:
        """(entries,)"""
        return self.key >> SLOT_BITS

    @property
    def entry_bytes(self) -> int:
        """Bytes of one entry."""
        return sum(array.element_size() for array in (self.key, *self.values))

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.key.numel() * self.entry_bytes

    def lists(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """(where each feature's entries begin, how many there are)."""
        edges = torch.searchsorted(self.key, torch.stack([features, features + 1]) << SLOT_BITS)
        return edges[0], edges[1] - edges[0]

    def find(self, keys: Tensor) -> Tensor:
        """Position of each key, -1 where there is no such entry."""
        if not self.key.numel():
            return torch.full_like(keys, -1)
        at = torch.searchsorted(self.key, keys).clamp_(max=self.key.numel() - 1)
        return torch.where(self.key[at] == keys, at, -1)

    def add(self, keys: Tensor, values: Tensor) -> None:
        """Adds ``values`` (m, 3), see `columns`, to the entries with these keys (may repeat); makes the missing."""
        if not keys.numel():
            return
        unique, inverse = torch.unique(keys, return_inverse=True)
        added = alike_sums(values[:, : len(self.values)], inverse, unique.numel()).to(self.M.dtype)
        at = self.find(unique)
        known = at >= 0
        for mine, more in zip(self.values, added.unbind(1), strict=True):
            mine[at[known]] += more[known]
        self._insert(unique[~known], added[~known])

    def insert(self, keys: Tensor, values: Tensor) -> None:
        """The same for keys that are not there, each once."""
        keys, order = torch.sort(keys)
        self._insert(keys, values[order, : len(self.values)])

    def _insert(self, keys: Tensor, values: Tensor) -> None:
        """``keys``: ascending, none of them there yet."""
        if not keys.numel():
            return
        at = torch.searchsorted(self.key, keys) + torch.arange(keys.numel(), device=keys.device)
        key, columns = self._moved(self.key, self.values, keys)
        key[at] = keys
        for column, new in zip(columns, values.unbind(1), strict=True):
            column[at] = new
        self._set(key, columns)

    def keep(self, kept: Tensor) -> None:
        """Drops the entries that are not ``kept`` (flags)."""
        self._set(self.key[kept], [array[kept] for array in self.values])

    def of_slots(self, chosen: Tensor) -> Tensor:
        """(entries,) which entries belong to slots for which ``chosen`` (slots,) holds."""
        return chosen[self.slot]


def columns(M: Tensor | None = None, R: Tensor | None = None, pmi: Tensor | None = None) -> Tensor:
    """(m, 3) what `Entries.add` takes; what is not given is 0."""
    given = next(column for column in (M, R, pmi) if column is not None)
    return torch.stack([torch.zeros_like(given) if column is None else column for column in (M, R, pmi)], 1)

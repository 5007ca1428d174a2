"""How far prototypes move, on the device: see `prototide.core.engines.movement` for the formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from prototide.core.engines.gpu.group import Changes
from prototide.core.engines.gpu.rows import to_device, to_host
from prototide.core.engines.gpu.sums import sums_by
from prototide.core.engines.movement import Journey, Movement
from prototide.core.engines.tables import ACTIVE, Longs, Reals, Slots


@dataclass(kw_only=True)
class DeviceJourney(Journey):
    """The prototypes as they were at the start, and how their centres changed since."""

    ids: Longs  # (slots,) -1 where no active prototype was
    squares: Reals  # (slots,) |M|^2
    add_squares: Callable[[Tensor, Tensor, Tensor], Tensor]  # `compute.Compute.squares`
    changes: list[Changes] = field(default_factory=list)  # of each group

    @classmethod
    def from_here(cls, slots: Slots, add_squares: Callable[[Tensor, Tensor, Tensor], Tensor]) -> DeviceJourney:
        """Starts."""
        ids = np.where(slots.kind == ACTIVE, slots.id, -1)
        return cls(ids=ids, squares=slots.square.copy(), add_squares=add_squares)

    def add_changes(self, changes: Changes) -> None:
        """One group's."""
        self.changes.append(changes)

    def movement(self, slots: Slots, omega: float, n_features: int) -> Movement:
        """To here."""
        if not self.changes:
            return Movement(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0), np.zeros(0))
        key, change = self.changes[0].key, self.changes[0].by
        if len(self.changes) > 1:
            key, inverse = torch.unique(torch.cat([changes.key for changes in self.changes]), return_inverse=True)
            change = sums_by(torch.cat([changes.by for changes in self.changes]), inverse, key.numel())
        attracted = to_host(self.add_squares(change, key, to_device(slots.mass**2, change.device)))
        begun = np.append(self.ids, np.full(slots.id.size - self.ids.size, -1))
        moved = np.flatnonzero((begun == slots.id) & (slots.kind == ACTIVE) & (attracted > 0))
        squares, old, new = attracted[moved], np.sqrt(self.squares[moved]), np.sqrt(slots.square[moved])
        shift = np.maximum(0.0, (squares - (new - old) ** 2) / (2 * old * new))
        return Movement(slots.id[moved], slots.cls[moved], slots.mass[moved] / omega, shift)

"""How far prototypes move, on the device: see `prototide.core.engines.movement` for the formula."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from prototide.core.engines.gpu.entries import SLOT_MASK
from prototide.core.engines.gpu.rows import to_device
from prototide.core.engines.gpu.sums import squares_by, sums_by
from prototide.core.engines.movement import Journey, Movement
from prototide.core.engines.tables import ACTIVE, Longs, Reals, Slots


@dataclass(kw_only=True)
class DeviceJourney(Journey):
    """The prototypes as they were at the start, and how their centres changed since."""

    ids: Longs  # (slots,) -1 where no active prototype was
    squares: Reals  # (slots,) |M|^2
    keys: list[Tensor] = field(default_factory=list)  # of each group: entries that changed, each once,
    changes: list[Tensor] = field(default_factory=list)  # and by how much

    @classmethod
    def begin(cls, slots: Slots) -> DeviceJourney:
        """From here."""
        return cls(ids=np.where(slots.kind == ACTIVE, slots.id, -1), squares=slots.square.copy())

    def movement(self, slots: Slots, omega: float, n_features: int) -> Movement:
        """To here."""
        if not self.keys:
            return Movement(np.zeros(0, np.int64), np.zeros(0, np.int32), np.zeros(0), np.zeros(0))
        key, change = self.keys[0], self.changes[0]
        if len(self.keys) > 1:
            key, inverse = torch.unique(torch.cat(self.keys), return_inverse=True)
            change = sums_by(torch.cat(self.changes), inverse, key.numel())
        attracted = squares_by(change, key & SLOT_MASK, to_device(slots.square, change.device)).cpu().numpy()
        begun = np.append(self.ids, np.full(slots.id.size - self.ids.size, -1))
        moved = np.flatnonzero((begun == slots.id) & (slots.kind == ACTIVE) & (attracted > 0))
        squares, old, new = attracted[moved], np.sqrt(self.squares[moved]), np.sqrt(slots.square[moved])
        shift = np.maximum(0.0, (squares - (new - old) ** 2) / (2 * old * new))
        return Movement(slots.id[moved], slots.cls[moved], slots.mass[moved] / omega, shift)

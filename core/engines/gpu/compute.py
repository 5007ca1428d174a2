"""What computes the large things: torch alone, or our kernels on CUDA where there is Triton."""

from __future__ import annotations

import functools
from importlib.util import find_spec
from typing import Protocol

import torch
from torch import Tensor

from prototide.core.engines.gpu import learning, nvrtc, scoring
from prototide.core.engines.gpu.entries import SLOT_MASK, Entries, moved
from prototide.core.engines.gpu.group import Changes, Group, Outcome, lay_out, spread_rows
from prototide.core.engines.gpu.plan import Plan
from prototide.core.engines.gpu.rows import DeviceRows
from prototide.core.engines.gpu.scoring import Frozen, View
from prototide.core.engines.gpu.sums import squares_by
from prototide.core.engines.plain import BLOCK_BYTES
from prototide.core.engines.tables import Reals, Rule

OLDEST = 8, 0  # compute capability whose shared memory holds the kernels' tables: Ampere


class Compute(Protocol):
    """The heavy parts of a step. Rows and ``x``, their unit values, lie on the device, as all that is returned."""

    @property
    def nbytes(self) -> int:
        """Bytes of what it keeps."""

    def forget(self, *, structure: bool) -> None:
        """The model has changed; ``structure``: so much that what is chosen by its statistics is chosen anew."""

    def rows_at_once(self, view: View, rows: int, *, all_scores: bool) -> int:
        """Rows that one call may take; ``all_scores``: when it keeps their scores of all slots."""

    def unit_rows(self, rows: DeviceRows, idf: Tensor | None, real: torch.dtype) -> Tensor:
        """(non-zeros,) see `scoring.unit_rows`."""

    def rank(self, rows: DeviceRows, x: Tensor, view: View, depth: int) -> tuple[Tensor, Tensor, Tensor]:
        """Classes, slots and scores of the best classes, each (n, depth)."""

    def class_scores(self, rows: DeviceRows, x: Tensor, view: View) -> Tensor:
        """(n, classes)"""

    def freeze(self, rows: DeviceRows, x: Tensor, view: View, own: Tensor, asked: Tensor, depth: int) -> Frozen:
        """See `scoring.freeze`."""

    def lay_out(
        self, plan: Plan, rows: DeviceRows, x: Tensor, weight: Reals, numbers: Reals, entries: Entries, rates: Tensor
    ) -> Group:
        """See `group.lay_out`."""

    def learn(self, group: Group, rule: Rule, omega: float, mean_loss: float) -> Outcome:
        """See `learning.learn`."""

    def put_back(self, group: Group, outcome: Outcome, entries: Entries) -> Changes:
        """See `learning.put_back`."""

    def moved(self, key: Tensor, values: list[Tensor], added: Tensor) -> tuple[Tensor, list[Tensor]]:
        """See `entries.moved`."""

    def count(self, group: Group, outcome: Outcome, rule: Rule, omega: float, features: int) -> Tensor:
        """See `learning.count`."""

    def squares(self, values: Tensor, keys: Tensor, most: Tensor) -> Tensor:
        """(slots,) sums of the squares of entries by slot, see `sums.squares_by`."""


class TorchCompute:
    """Torch alone: every device that torch knows, every precision."""

    nbytes = 0
    unit_rows = staticmethod(scoring.unit_rows)
    lay_out = staticmethod(functools.partial(lay_out, spread=spread_rows))
    learn = staticmethod(learning.learn)
    put_back = staticmethod(learning.put_back)
    moved = staticmethod(moved)
    count = staticmethod(learning.count)

    def forget(self, *, structure: bool) -> None:
        """It remembers nothing."""

    def squares(self, values: Tensor, keys: Tensor, most: Tensor) -> Tensor:
        """(slots,) see `sums.squares_by`."""
        return squares_by(values, keys & SLOT_MASK, most)

    def rows_at_once(self, view: View, rows: int, *, all_scores: bool) -> int:
        """Bounded by three tables of scores in float64."""
        return max(1, min(max(1, rows), BLOCK_BYTES // (24 * max(1, view.roster.used))))

    def _scores(self, rows: DeviceRows, x: Tensor, view: View) -> tuple[Tensor, Tensor]:
        score = scoring.slot_scores(rows, x, view.entries, view.roster, view.omega, view.rule)[2]
        return scoring.best_slots(score, view.roster)

    def rank(self, rows: DeviceRows, x: Tensor, view: View, depth: int) -> tuple[Tensor, Tensor, Tensor]:
        """Classes, slots and scores of the best classes, each (n, depth)."""
        return scoring.rank_classes(*self._scores(rows, x, view), depth)

    def class_scores(self, rows: DeviceRows, x: Tensor, view: View) -> Tensor:
        """(n, classes)"""
        return self._scores(rows, x, view)[0]

    def freeze(self, rows: DeviceRows, x: Tensor, view: View, own: Tensor, asked: Tensor, depth: int) -> Frozen:
        """See `scoring.freeze`."""
        return scoring.freeze(rows, x, view.entries, view.roster, view.omega, view.rule, own, asked, depth)


def compute_for(device: torch.device, real: torch.dtype) -> Compute:
    """The kernels where they run; float64 is torch's."""
    kernels = real == torch.float32 and device.type == "cuda" and find_spec("triton") is not None and nvrtc.available()
    if not kernels or torch.cuda.get_device_capability(device) < OLDEST:
        return TorchCompute()
    from prototide.core.engines.gpu.triton_compute import TritonCompute

    return TritonCompute(device)

"""What the engine on a device keeps, and how it is kept up: tables, entries, maintenance, state.

Small tables lie on the host, as the plain engine has them; on the device lie the entries (`entries.Entries`) and what
is counted by feature.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prototide.core.engines import budget
from prototide.core.engines.gpu import births, maintenance, memory
from prototide.core.engines.gpu.compute import compute_for
from prototide.core.engines.gpu.entries import Entries, keys_of
from prototide.core.engines.gpu.rows import DeviceRows, to_device, to_host
from prototide.core.engines.gpu.scoring import View
from prototide.core.engines.gpu.sums import wide_type
from prototide.core.engines.plain import PlainEngine
from prototide.core.engines.tables import (
    ACTIVE,
    FREE,
    LOSS_ROWS,
    OMEGA,
    ROWS,
    TRIAL,
    Features,
    Flags,
    Ints,
    Longs,
    Reals,
    Rule,
    Slots,
    grown,
)  # fmt: skip
from prototide.core.rows import CsrRows

WIDE = 8  # bytes
ROWS_TOGETHER = 65_536  # reckoned with in one group, however few classes are known


class Keeping(PlainEngine):
    """State of the engine on ``device``."""

    def __init__(self, rule: Rule, dtype: type[np.floating[Any]], device: str) -> None:
        super().__init__(rule, dtype)
        self.device = torch.device(device)
        self._real = torch.float64 if dtype == np.float64 else torch.float32
        self._wide = wide_type(self.device)
        self._compute = compute_for(self.device, self._real)
        self._store = Entries(self._real, self.device, self._compute.moved)
        self._frequency = torch.zeros(0, dtype=self._wide, device=self.device)  # (features,) rows with it, times omega
        self._violation = torch.zeros_like(self._frequency)  # (features,) see `tables.Features`
        self._total = torch.zeros_like(self._frequency)
        self._viewed: View | None = None  # until something changes
        self._failed = False  # a step, in its middle

    @property
    def n_features(self) -> int:
        """Features seen."""
        return self._violation.numel()

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, on the host and on the device."""
        tables = sum(array.nbytes for table in (self._slots, self._classes) for array in table)
        statistics = 3 * self._violation.numel() * self._violation.element_size()
        return tables + self._store.nbytes + statistics + self._compute.nbytes

    # --- inside prototypes ---

    def _entries(self, slot: int) -> tuple[Ints, Reals, Reals]:
        inside = torch.nonzero(self._store.slot == slot)[:, 0]
        feature, M, R = (table[inside].cpu().numpy() for table in (self._store.feature, self._store.M, self._store.R))
        return feature.astype(np.int32), M.astype(np.float64), R.astype(np.float64)

    def _check_whole(self) -> None:
        if self._failed:
            raise RuntimeError(
                f"a step failed in its middle on {self.device}: the model is half changed. Go on from the last state"
            )

    def _changed(self, *, structure: bool = False) -> None:
        self._viewed = None
        self._compute.forget(structure=structure)

    # --- room ---

    def make_room(self, limits: Longs, width: int) -> None:
        """Room for one class per entry of ``limits`` (its most prototypes) and for ``width`` features."""
        missing = width - self.n_features
        if missing > 0 or limits.size > self._classes.active.size:
            self._changed()
        super().make_room(limits, 0)
        if missing > 0:
            more = torch.zeros(missing, dtype=self._wide, device=self.device)
            self._frequency, self._violation, self._total = (
                torch.cat([table, more]) for table in (self._frequency, self._violation, self._total)
            )

    def _reserve_slots(self, births: int) -> None:
        missing = births - int(np.count_nonzero(self._slots.kind == FREE))
        if missing > 0:
            size = self._slots.kind.size + max(missing, self._slots.kind.size // 2)
            self._slots = Slots(*grown(self._slots, size, (0, FREE, 0, 0, -1, 0, -1)))

    def need(self, nonzeros: int = 0, rows: int = 1) -> memory.Need:
        """Bytes on the device, at most, to score and to learn rows of so many non-zeros in all."""
        touched = int(self._classes.limit.max(initial=1)) + (self.rule.wrong_classes if self.rule.correction > 0 else 0)
        slots, entries = self._slots.kind.size, self._store.key.numel()
        together = max(ROWS_TOGETHER, self._most_group_rows(self._classes.active.size))
        share = min(1.0, together / rows)
        new = nonzeros * touched
        return memory.need(slots, self.n_features, entries, new, int(share * new), self.rule)

    def check_memory(self, rows: CsrRows | DeviceRows) -> None:
        """MemoryError when the device may be too small to learn these rows."""
        nonzeros = rows.indices.size if isinstance(rows, CsrRows) else rows.indices.numel()
        memory.check(self.device, self.need(nonzeros, max(1, rows.count)), self.nbytes, f"learning {rows.count:,} rows")

    # --- maintenance ---

    def _rescale(self) -> None:
        omega, scalars = self.omega, self._scalars
        for values in self._store.values:
            values /= omega
        self._slots.mass[:] /= omega
        self._slots.square[:] /= omega * omega
        self._frequency /= omega
        self._violation /= omega
        self._total /= omega
        scalars[ROWS] /= omega
        scalars[LOSS_ROWS] /= omega
        scalars[OMEGA] = 1.0
        self._changed()

    def _maintain(self) -> None:
        rule, slots, classes = self.rule, self._slots, self._classes
        self._exact_norms(self._touched)
        gone = maintenance.light(slots, classes, self.omega, rule)
        maintenance.prune(gone, slots, classes, self._counters)
        maintenance.drop_slots(self._store, gone, slots.kind.size)
        if rule.merge_distance > 0:
            maintenance.merge(self._store, slots, classes, self._counters, *self._merge_threshold())
        if rule.truncation > 0:
            old = (slots.kind == ACTIVE) & self._touched[slots.cls] & (slots.mass / self.omega >= rule.young_mass)
            if old.any():
                square = to_device(slots.square, self.device)
                maintenance.truncate(self._store, to_device(old, self.device), square, self.omega, rule)
                self._exact_norms(self._touched)
        self._touched[:] = False
        self._keep_to_budget()
        self._changed(structure=True)

    def _exact_norms(self, touched: Flags) -> None:
        slots = self._slots
        most = to_device(slots.mass**2, self.device)  # sums of unit rows
        exact = to_host(self._compute.squares(self._store.M, self._store.key, most))
        np.copyto(slots.square, exact, where=(slots.kind != FREE) & touched[slots.cls])

    def _pair_distances(self) -> Reals:
        return maintenance.all_distances(self._store, self._slots)

    # --- memory budget: what `budget.keep_within` asks for ---

    @property
    def packed_bytes(self) -> int:
        """Bytes of the content."""
        return self._store.nbytes + 3 * WIDE * self.n_features + self._tables_bytes(self._used())

    @property
    def entry_bytes(self) -> float:
        """Bytes that an entry takes."""
        return self._store.entry_bytes

    def merge_within(self, distance: float) -> None:
        """Merges all prototypes of one class that are so near."""
        everywhere = np.ones_like(self._touched)
        maintenance.merge(self._store, self._slots, self._classes, self._counters, distance, everywhere)

    def _parts(self) -> Tensor:
        return maintenance.parts(
            self._store, to_device(self._slots.square, self.device), self.omega, self.rule, informed=True
        )

    def largest_parts(self) -> Reals:
        """(slots,) largest part of each prototype's centre, 0 for empty slots."""
        square = to_device(self._slots.square, self.device)
        return (
            maintenance.largest(self._store, maintenance.centre_parts(self._store, square, self.rule), square)
            .cpu()
            .numpy()
        )

    def part_counts(self, below: Reals) -> Longs:
        """Entries by bucket of their part, of those below ``below[slot]``."""
        part = self._parts()
        counted = part[part < to_device(below, self.device)[self._store.slot]].float().view(torch.int32) >> 19
        return torch.bincount(counted, minlength=budget.BUCKETS).cpu().numpy()

    def drop_parts(self, least: Reals) -> None:
        """Drops the entries whose part is below ``least[slot]``."""
        kept = self._parts() >= to_device(least, self.device)[self._store.slot]
        self._store.keep(kept)
        self._exact_norms(np.ones_like(self._touched))

    # --- state ---

    def state(self) -> dict[str, NDArray[Any]]:
        """The plain engine's arrays, copies."""
        self._check_whole()
        births.link(self._slots, self._classes)
        self._features = Features(
            *(t.cpu().numpy().astype(np.float64) for t in (self._frequency, self._violation, self._total))
        )
        entries = self._store
        count = torch.bincount(entries.feature, minlength=self.n_features)
        return self._tables_state(self._used()) | {
            "entry.count": count.cpu().numpy().astype(np.int32),
            "entry.slot": entries.slot.cpu().numpy().astype(np.int32),
            "entry.centre": entries.M.cpu().numpy().copy(),
            "entry.correction": entries.R.cpu().numpy().copy(),
            "entry.pmi": (torch.zeros_like(entries.R) if entries.pmi is None else entries.pmi).cpu().numpy().copy(),
        }

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Becomes the model whose `state` this is, of any engine that learns."""
        entries, slots = int(arrays["entry.count"].sum()), arrays["slot.kind"].size
        wanted = memory.need(slots, arrays["entry.count"].size, entries, 0, 0, self.rule)
        memory.check(self.device, wanted, 0, f"a model of {slots:,} prototypes")
        self._restore_tables(arrays)
        kind = self._slots.kind
        kind[(kind != ACTIVE) & (kind != TRIAL)] = FREE
        self._frequency, self._violation, self._total = (
            to_device(table, self.device).to(self._wide) for table in self._features
        )
        count, slot = np.array(arrays["entry.count"]), np.array(arrays["entry.slot"], np.int64)
        feature = np.repeat(np.arange(count.size), count)
        self._store.key = keys_of(to_device(feature, self.device), to_device(slot, self.device))
        self._store.M, self._store.R, self._store.pmi = (
            to_device(arrays[f"entry.{name}"], self.device).to(self._real) for name in ("centre", "correction", "pmi")
        )
        if self.rule.pmi == 0 and not arrays["entry.pmi"].any():
            self._store.pmi = None
        self._changed(structure=True)

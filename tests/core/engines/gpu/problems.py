"""Engines side by side on small random streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prototide.core import FastKMeansClassifier
from prototide.core.engines.answers import Step
from prototide.core.engines.gpu.compute import TorchCompute
from prototide.core.engines.gpu.engine import GpuEngine
from prototide.core.engines.plain import PlainEngine
from prototide.core.parameters import rule_of
from prototide.core.rows import CsrRows, canonical_rows
from tests.core.engines.gpu.conftest import DEVICE
from tests.core.streams import text_stream


@dataclass
class Stream:
    """Batches of rows with classes; -1 for none."""

    rows: CsrRows
    classes: NDArray[np.int32]
    weight: NDArray[np.float64]
    limits: NDArray[np.int64]
    parameters: dict[str, Any]

    @classmethod
    def of(cls, seed: int, rows: int, features: int = 40, classes: int = 4, k: int = 3, **parameters: Any) -> Stream:
        """Some rows without a class, some weights other than 1."""
        random = np.random.default_rng(seed)
        X, y = text_stream(seed, rows, features, classes)
        own = np.where(random.random(rows) < 0.05, -1, y).astype(np.int32)
        weight = np.where(random.random(rows) < 0.9, 1.0, random.random(rows) + 0.5)
        defaults = FastKMeansClassifier().get_params() | parameters
        return cls(canonical_rows(X.astype(np.float32)), own, weight, np.full(classes, k, np.int64), defaults)

    def learn(self, engine: PlainEngine, batch: int, depth: int = 4) -> list[Step]:
        """All rows, batch by batch."""
        engine.make_room(self.limits, self.rows.width)
        steps = []
        for first in range(0, self.rows.count, batch):
            part = slice(first, min(first + batch, self.rows.count))
            rows = self.rows.part(part.start, part.stop)
            steps.append(engine.learn(rows, self.classes[part], self.weight[part], depth))
        return steps

    def plain(self) -> PlainEngine:
        """The reference, fresh."""
        return PlainEngine(
            rule_of(self.parameters), np.float64 if self.parameters["dtype"] == "float64" else np.float32
        )

    def torch(self) -> GpuEngine:
        """The engine for devices on torch alone, fresh."""
        engine = self.device()
        engine._compute = TorchCompute()
        return engine

    def triton(self) -> GpuEngine:
        """The same on the kernels."""
        from prototide.core.engines.gpu.triton_compute import TritonCompute

        engine = self.device()
        engine._compute = TritonCompute(torch.device(DEVICE))
        return engine

    def device(self) -> GpuEngine:
        """The engine for devices as users get it, fresh."""
        return GpuEngine(rule_of(self.parameters), self._dtype, DEVICE)

    @property
    def _dtype(self) -> type[np.floating[Any]]:
        return np.float64 if self.parameters["dtype"] == "float64" else np.float32


def assert_close(ours: PlainEngine, theirs: PlainEngine, tolerance: float) -> None:
    """The same prototypes in the same slots, and the same statistics, up to rounding."""
    mine, reference = ours.state(), theirs.state()
    assert mine.keys() == reference.keys()
    for name in reference:
        if not name.startswith("entry."):
            np.testing.assert_allclose(mine[name], reference[name], tolerance, tolerance, err_msg=name)
    slots = reference["slot.kind"].size
    for name in ("entry.centre", "entry.correction", "entry.pmi"):
        np.testing.assert_allclose(dense(mine, name, slots), dense(reference, name, slots), tolerance, tolerance)


def dense(state: dict[str, NDArray[Any]], name: str, slots: int) -> NDArray[np.float64]:
    """(features, slots)"""
    out = np.zeros((state["entry.count"].size, slots))
    out[np.repeat(np.arange(out.shape[0]), state["entry.count"]), state["entry.slot"]] = state[name]
    return out


def assert_same_answers(ours: list[Step], theirs: list[Step], tolerance: float) -> None:
    """Winners equal, scores and shifts close."""
    for mine, reference in zip(ours, theirs, strict=True):
        assert (mine.prototypes == reference.prototypes).all()
        assert (mine.ranking.classes == reference.ranking.classes).all()
        np.testing.assert_allclose(mine.ranking.scores, reference.ranking.scores, tolerance, tolerance)
        assert (mine.own.slots == reference.own.slots).all()
        np.testing.assert_allclose(mine.own.scores, reference.own.scores, tolerance, tolerance)
        order = np.argsort(mine.movement.ids), np.argsort(reference.movement.ids)
        assert (mine.movement.ids[order[0]] == reference.movement.ids[order[1]]).all()
        shifts = mine.movement.shifts[order[0]], reference.movement.shifts[order[1]]
        np.testing.assert_allclose(*shifts, rtol=100 * tolerance, atol=100 * tolerance)

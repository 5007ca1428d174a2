"""Euclidean distance through the cosine: a map onto a sphere where cosine orders rows as distance does here.

    u = (x - mean) / deviation / sqrt(D)        q = |u|^2        z = [q - 1, q + 1, 2 u] / (q + 1)

the inverse stereographic map plus a constant. Rows of at most `STANDARDISED_COLUMNS` columns are standardised with
running statistics (an all-zero row is a point like any other); wider ones are only divided by their running root mean
square norm, without centring, so that sparse rows stay sparse (a row without non-zeros stays empty).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prototide.core.rows import CsrRows

STANDARDISED_COLUMNS = 4096
TINY = 1e-12
LARGEST = 1e100


class EuclideanLift:
    """Running statistics of the rows, and the map. Lifted rows have two more columns, in front."""

    def __init__(self) -> None:
        self.rows = 0.0  # weight of the rows seen
        self.mean = np.zeros(0)  # (columns,)
        self.squares = np.zeros(0)  # (columns,) sum of squared deviations; wide rows: (1,) sum of squared norms
        self.standardised: bool | None = None  # decided by the first rows

    def standardises(self, width: int) -> bool:
        """Whether rows of so many columns are standardised: then a row of zeros is a point like any other."""
        return width <= STANDARDISED_COLUMNS if self.standardised is None else self.standardised

    def learn(self, rows: CsrRows, weight: NDArray[np.float64]) -> None:
        """Takes rows, checked ones, into the statistics."""
        total = float(weight.sum())
        if total == 0:
            return
        self.standardised = self.standardises(rows.width)
        if not self.standardised:
            norms = np.zeros(rows.count)
            np.add.at(norms, np.repeat(np.arange(rows.count), np.diff(rows.indptr)), rows.data.astype(np.float64) ** 2)
            self.squares = np.array([self.squares.sum() + weight @ norms])
            self.rows += total
            return
        dense = self._dense(rows)
        more = np.zeros(dense.shape[1] - self.mean.size)  # a new column was 0 in all rows so far
        self.mean, self.squares = np.append(self.mean, more), np.append(self.squares, more)
        mean = weight @ dense / total
        squares = weight @ (dense - mean) ** 2
        delta, both = mean - self.mean, self.rows + total
        self.squares = self.squares + squares + delta**2 * self.rows * total / both
        self.mean = self.mean + delta * total / both
        self.rows = both

    def check(self, rows: CsrRows) -> None:
        """ValueError for rows that cannot be lifted: too large, or too wide for a standardised model."""
        if rows.data.size and float(np.abs(rows.data).max()) > LARGEST:
            raise ValueError(
                f"X contains {rows.data[np.abs(rows.data).argmax()]}; euclidean rows must lie within +-{LARGEST:g}"
            )
        if self.standardises(rows.width) and rows.width > STANDARDISED_COLUMNS:
            raise ValueError(
                f"X has {rows.width} columns; a euclidean model that began with at most {STANDARDISED_COLUMNS} columns "
                "standardises them and cannot grow beyond that: start a new model on the wide rows"
            )

    def transform(self, rows: CsrRows) -> CsrRows:
        """The lifted rows, with the statistics so far (none: as if of unit scale). ValueError as `check`."""
        self.check(rows)
        if not self.standardises(rows.width):
            return self._wide(rows)
        dense = self._dense(rows)
        columns = max(1, dense.shape[1])
        more = np.zeros(dense.shape[1] - self.mean.size)
        mean, squares = np.append(self.mean, more), np.append(self.squares, more)
        deviation = np.sqrt(squares / self.rows) if self.rows else np.ones(dense.shape[1])
        u = (dense - mean) / np.where(deviation > TINY, deviation, 1.0) / np.sqrt(columns)
        q = (u * u).sum(1, keepdims=True)
        z = np.hstack([q - 1, q + 1, 2 * u]) / (q + 1)
        count, width = z.shape
        indices = np.tile(np.arange(width, dtype=np.int32), count)
        return CsrRows(np.arange(count + 1, dtype=np.int64) * width, indices, z.ravel(), width)

    def _wide(self, rows: CsrRows) -> CsrRows:
        scale = 1 / max(TINY, float(np.sqrt(self.squares.sum() / self.rows))) if self.rows else 1.0
        u = rows.data.astype(np.float64) * scale
        lengths = np.diff(rows.indptr)
        row = np.repeat(np.arange(rows.count), lengths)
        q = np.bincount(row, u * u, rows.count)
        filled = lengths > 0
        indptr = np.append(0, np.cumsum(lengths + 2 * filled))
        indices, data = np.empty(indptr[-1], np.int32), np.empty(indptr[-1])
        entry = np.arange(u.size) + 2 * (np.cumsum(filled)[row])
        indices[entry], data[entry] = rows.indices + 2, 2 * u / (q + 1)[row]
        first, q = indptr[:-1][filled], q[filled]
        indices[first], data[first] = 0, (q - 1) / (q + 1)
        indices[first + 1], data[first + 1] = 1, 1
        return CsrRows(indptr, indices, data, rows.width + 2)

    def _dense(self, rows: CsrRows) -> NDArray[np.float64]:
        dense = np.zeros((rows.count, max(rows.width, self.mean.size)))
        dense[np.repeat(np.arange(rows.count), np.diff(rows.indptr)), rows.indices] = rows.data
        return dense

    def state(self) -> dict[str, NDArray[Any]]:
        """Named arrays, copies."""
        flag = -1.0 if self.standardised is None else float(self.standardised)
        return {"mean": self.mean.copy(), "squares": self.squares.copy(), "scalars": np.array([self.rows, flag])}

    @classmethod
    def from_state(cls, arrays: dict[str, NDArray[Any]]) -> EuclideanLift:
        """The lift whose `state` this is."""
        lift = cls()
        lift.mean, lift.squares = np.array(arrays["mean"]), np.array(arrays["squares"])
        lift.rows, flag = (float(value) for value in arrays["scalars"])
        lift.standardised = None if flag < 0 else bool(flag)
        return lift

"""A model that learns no more: one vector a prototype, V_p = tau M_p / |M_p| + R_p, in the format that scores.

It answers as the engine that it was made of, from half the memory or less: no sums, no corrections, no statistics.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

import numpy as np
import scipy.sparse as sp
from numba import prange
from numpy.typing import NDArray

from prototide.core.compiling import kernel
from prototide.core.engines.answers import OwnBest, Step
from prototide.core.engines.movement import Movement
from prototide.core.engines.plain import BLOCK_BYTES, PlainEngine
from prototide.core.engines.scoring import rounded
from prototide.core.engines.tables import ACTIVE, ROWS, Classes, Floats, Ints, Longs, Reals, Rows, Rule, Slots
from prototide.core.rows import CsrRows

BITS = np.arange(2**16, dtype=np.uint32)
FLOAT16 = BITS.astype(np.uint16).view(np.float16).astype(np.float32)  # the value of each bit pattern
BFLOAT16 = (BITS << 16).view(np.float32)
FORMATS: dict[int, Any] = {52: np.float64, 23: np.float32, 10: np.float16}  # by bits of the mantissa


@kernel()
def _round_all(vector: Reals, mantissa_bits: int) -> None:
    for i in range(vector.size):
        vector[i] = rounded(vector[i], mantissa_bits)


@kernel(parallel=True)
def _score(rows: Rows, start: Longs, slot: NDArray[Any], vector: Floats, score: Reals) -> None:
    """score[t, p] <- x_t . V_p"""
    for t in prange(score.shape[0]):
        score[t] = 0
        for i in range(rows.indptr[t], rows.indptr[t + 1]):
            j, value = rows.indices[i], rows.x[i]
            if j < start.size - 1:
                for k in range(start[j], start[j + 1]):
                    score[t, slot[k]] += value * vector[k]


@kernel(parallel=True)
def _score_halves(
    rows: Rows, start: Longs, slot: NDArray[Any], bits: NDArray[np.uint16], values: Floats, score: Reals
) -> None:
    """The same for vectors in 16 bits, ``values`` by bit pattern."""
    for t in prange(score.shape[0]):
        score[t] = 0
        for i in range(rows.indptr[t], rows.indptr[t + 1]):
            j, value = rows.indices[i], rows.x[i]
            if j < start.size - 1:
                for k in range(start[j], start[j + 1]):
                    score[t, slot[k]] += value * values[bits[k]]


class FrozenEngine(PlainEngine):
    """Scores as the plain engine does; its tables of classes and slots, and the vectors by feature."""

    name = "frozen"

    def __init__(self, rule: Rule) -> None:
        super().__init__(rule, np.float32)
        self._start = np.zeros(1, np.int64)  # (features + 1,) where each feature's entries begin
        self._slot: NDArray[Any] = np.zeros(0, np.uint16)  # (entries,) ascending in each feature
        self._vector: NDArray[Any] = np.zeros(0, np.float32)  # (entries,) V; bfloat16 as its bits in uint16
        self._idf: Floats = np.zeros(0, np.float32)  # (features,)
        self._rare = 1.0  # idf of a feature never seen

    @classmethod
    def of(cls, engine: PlainEngine) -> Self:
        """The same prototypes as they are now."""
        frozen, state, omega = cls(engine.rule), engine.state(), engine.omega
        frozen._slots = Slots(*(state[f"slot.{name}"] for name in Slots._fields))
        frozen._classes = Classes(*(state[f"class.{name}"] for name in Classes._fields))
        frozen._counters, frozen.rows_learned = state["counters"][:-1], int(state["counters"][-1])
        square, slot = frozen._slots.square, state["entry.slot"]
        scale = np.divide(engine.rule.tau, np.sqrt(square), out=np.zeros(square.size), where=square > 0)
        vector = scale[slot] * state["entry.centre"] + state["entry.correction"] / omega
        kept = (frozen._slots.kind[slot] == ACTIVE) & (vector != 0)
        feature = np.repeat(np.arange(state["entry.count"].size), state["entry.count"])[kept]
        frozen._start = np.append(0, np.cumsum(np.bincount(feature, minlength=state["entry.count"].size)))
        frozen._slot = slot[kept].astype(np.uint16 if slot.max(initial=0) < 2**16 else np.int32)
        frozen._vector = _stored(vector[kept], engine.rule.mantissa_bits)
        rows = state["scalars"][ROWS] / omega if engine.rule.idf else 0.0
        frequency = state["feature.document_frequency"] / omega * engine.rule.idf
        frozen._idf = (np.log((1 + rows) / (1 + frequency)) + 1).astype(
            np.float64 if frozen._vector.dtype == np.float64 else np.float32
        )
        frozen._rare = float(np.log(1 + rows) + 1)
        masses = frozen._slots.mass / omega  # a frozen model's own omega is 1
        frozen._slots = frozen._slots._replace(mass=masses, square=square / omega**2)
        return frozen

    @property
    def n_features(self) -> int:
        """Features seen."""
        return self._start.size - 1

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        own = (self._start, self._slot, self._vector, self._idf)
        return sum(array.nbytes for table in (own, self._slots, self._classes) for array in table)

    # --- inside prototypes ---

    def scoring_vector(self, slot: int) -> tuple[Ints, Reals, Reals]:
        """(features ascending, V, zeros): a frozen model does not know centre and correction apart."""
        entries = np.flatnonzero(self._slot == slot)
        features = np.searchsorted(self._start, entries, side="right") - 1
        return features.astype(np.int32), _values(self._vector[entries]), np.zeros(entries.size)

    def centres(self) -> sp.csr_matrix:
        """ValueError: there are none."""
        raise ValueError("a frozen model keeps no centres: ask a model that still learns")

    # --- scores ---

    def _unit(self, rows: CsrRows) -> Rows:
        idf = self._idf.astype(np.float64)
        if rows.width > idf.size:
            idf = np.append(idf, np.full(rows.width - idf.size, self._rare))
        x, row = rows.data * idf[rows.indices], np.repeat(np.arange(rows.count), np.diff(rows.indptr))
        lengths = np.sqrt(np.bincount(row, x * x, rows.count))
        return Rows(rows.indptr, rows.indices, x / np.where(lengths > 0, lengths, 1.0)[row])

    def _score_blocks(
        self, rows: Rows, used: int
    ) -> Iterator[tuple[int, int, NDArray[Any], NDArray[Any], NDArray[Any]]]:
        """(first row, last row + 1, nothing, nothing, scores) of blocks of rows; the array is reused."""
        count, none = rows.indptr.size - 1, np.zeros((0, 0))
        size = max(1, min(count, BLOCK_BYTES // (8 * max(1, used))))
        scores = np.empty((size, used))
        for first in range(0, count, size):
            last = min(first + size, count)
            block = Rows(rows.indptr[first : last + 1], rows.indices, rows.x)
            if self._vector.itemsize == 2:
                values = FLOAT16 if self._vector.dtype == np.float16 else BFLOAT16
                bits = self._vector.view(np.uint16)
                _score_halves(block, self._start, self._slot, bits, values, scores[: last - first])
            else:
                _score(block, self._start, self._slot, self._vector, scores[: last - first])
            yield first, last, none, none, scores[: last - first]

    # --- no learning ---

    def learn(self, rows: CsrRows, own_class: Ints, weight: Reals, depth: int) -> Step:
        """Predicts; no row may have a class: its callers see to that."""
        ranking, winners = self.rank(rows, depth)
        none = np.zeros(0)
        movement = Movement(none.astype(np.int64), none.astype(np.int32), none, none)
        return Step(ranking, winners, OwnBest.none(rows.count), [], [], movement)

    # --- state ---

    def state(self) -> dict[str, NDArray[Any]]:
        """The whole model as named arrays, copies."""
        arrays = {
            "frozen.start": self._start.copy(),
            "frozen.slot": self._slot.copy(),
            "frozen.vector": self._vector.copy(),
            "frozen.idf": self._idf.copy(),
            "frozen.rare": np.array([self._rare]),
            "counters": np.append(self._counters, self.rows_learned),
        }
        for group, table in (("slot", self._slots), ("class", self._classes)):
            arrays |= {f"{group}.{name}": array.copy() for name, array in table._asdict().items()}
        return arrays

    def restore(self, arrays: dict[str, NDArray[Any]]) -> None:
        """Becomes the model whose `state` this is."""
        self._slots = Slots(*(np.array(arrays[f"slot.{name}"]) for name in Slots._fields))
        self._classes = Classes(*(np.array(arrays[f"class.{name}"]) for name in Classes._fields))
        self._start, self._slot, self._vector = (
            np.array(arrays[f"frozen.{name}"]) for name in ("start", "slot", "vector")
        )
        self._idf, self._rare = np.array(arrays["frozen.idf"]), float(arrays["frozen.rare"][0])
        self._counters, self.rows_learned = np.array(arrays["counters"][:-1]), int(arrays["counters"][-1])


def _stored(vector: Reals, mantissa_bits: int) -> NDArray[Any]:
    """In the format that scores, rounded to nearest."""
    _round_all(vector, mantissa_bits)
    if mantissa_bits == 7:
        return (vector.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)
    return vector.astype(FORMATS[mantissa_bits])


def _values(stored: NDArray[Any]) -> Reals:
    return (BFLOAT16[stored] if stored.dtype == np.uint16 else stored).astype(np.float64)

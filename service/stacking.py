"""The rows of several records as one batch, and the learner's answers cut back into records."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from prototide.service.wire import Batch, Label
from prototide.service.wire_fields import FLOAT32, INT32, array_of

_Scalar = TypeVar("_Scalar", np.int32, np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """The rows of a step, record after record.

    `X`: float32 CSR (n, widest). `labels`: n entries, None where unlabelled; None when every row is. `weights`: float32
    (n,) or None. `bounds`: (records + 1,), record i has rows bounds[i] to bounds[i + 1].
    """

    X: sparse.csr_matrix
    labels: list[Label | None] | None
    weights: NDArray[np.float32] | None
    bounds: NDArray[np.int64]

    def __len__(self) -> int:
        return int(self.bounds[-1])


def stack(batches: Sequence[Batch]) -> Rows:
    """All rows in order; at least one batch. Narrower batches lack columns, which are zero."""
    truths = [batch.truth for batch in batches]
    counts = [batch.shape[0] for batch in batches]
    labels = None
    if any(truth is not None for truth in truths):
        labels = list(chain.from_iterable(truth or [None] * n for truth, n in zip(truths, counts, strict=True)))
    weights = None
    given = [batch.weights for batch in batches]
    if any(each is not None for each in given):
        pairs = zip(given, counts, strict=True)
        weights = np.concatenate([np.ones(n, np.float32) if each is None else each for each, n in pairs])
    bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Rows(_stacked(batches, np.diff(bounds)), labels, weights, bounds)


def wrong(predicted: Sequence[Label | None], truth: Sequence[Label | None] | None) -> NDArray[np.bool_]:
    """One for each row with a truth, in order: whether the prediction differs from it (unknown does)."""
    if truth is None:
        return np.zeros(0, np.bool_)
    actual = _objects(truth)
    known = ~_is_none(actual)
    different: NDArray[Any] = _objects(predicted)[known] != actual[known]
    return different.astype(np.bool_)


def unknown(predicted: Sequence[Label | None]) -> int:
    """How many rows were answered None."""
    return int(np.count_nonzero(_is_none(_objects(predicted))))


def _stacked(batches: Sequence[Batch], counts: NDArray[np.int64]) -> sparse.csr_matrix:
    indptr = _joined((batch.indptr for batch in batches), INT32)
    begins = np.cumsum(counts + 1) - counts - 1  # each record's offsets begin where those before it end
    nnz = indptr[begins + counts].astype(np.int64)
    offsets = indptr + np.repeat(np.cumsum(nnz) - nnz, counts + 1)
    stacked = sparse.csr_matrix(
        (
            _joined((batch.data for batch in batches), FLOAT32),
            _joined((batch.indices for batch in batches), INT32),
            np.append(0, np.delete(offsets, begins)).astype(np.int32),
        ),
        shape=(int(counts.sum()), max(batch.shape[1] for batch in batches)),
    )
    stacked.has_canonical_format = True  # each was
    return stacked


def _joined(values: Iterable[bytes], dtype: np.dtype[_Scalar]) -> NDArray[_Scalar]:
    """One array of all; writable, as for read-only ones the learner would be compiled again."""
    return array_of(bytearray().join(values), dtype)


def _objects(labels: Sequence[Label | None]) -> NDArray[Any]:
    array = np.empty(len(labels), dtype=object)
    array[:] = labels
    return array


def _is_none(labels: NDArray[Any]) -> NDArray[np.bool_]:
    same: NDArray[Any] = np.equal(labels, np.array(None, dtype=object))
    return same.astype(np.bool_)

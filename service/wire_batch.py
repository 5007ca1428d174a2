"""The `train` topic's format: a sparse batch of rows, with labels, weights and ids where the sender has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgpack
import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import sparse

from prototide.service.wire_fields import (
    FLOAT32,
    INT32,
    INT64,
    VERSION,
    DeadLetterReason,
    Label,
    RejectedRecord,
    Unpacked,
    array_of,
    check_finite,
    check_keys,
    check_version,
    fits_int64,
    is_int64,
    longest_label_bytes,
    scalars,
    schema,
    unpack,
    vector,
)

REQUIRED = frozenset({"v", "shape", "indptr", "indices", "data"})
OPTIONAL = frozenset({"labels", "weights", "ids", "ts"})
_INT32_MAX = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """How large one record may be; settings `limits.*`."""

    record_bytes: int = 8 * 2**20
    rows: int = 65_536
    features: int = 2**24
    nnz: int = 2_000_000
    label_bytes: int = 128


@dataclass(slots=True, eq=False)  # frozen, it would take three times as long to make, and thousands a step are made
class Batch:
    """The rows of one record; not to be changed.

    Arrays stay the bytes that came, checked: those of thousands of small records are joined faster than arrays are.
    `shape`: (n, n_features). `indptr`, `indices`, `data`: of `X`. `truth`: n labels, None where unlabelled.
    `ids`: n entries. `ts`: event time, ms since the epoch. None when absent (`truth`: also when no row has a label).
    """

    shape: tuple[int, int]
    indptr: bytes
    indices: bytes
    data: bytes
    truth: list[Label | None] | None
    packed_labels: bytes | None = None
    packed_weights: bytes | None = None
    ids: list[Label] | None = None
    ts: int | None = None

    @property
    def X(self) -> sparse.csr_matrix:  # noqa: N802 - the field's name
        """The rows as float32 CSR (n, n_features), sorted and without duplicates; over the bytes, made each time."""
        arrays = array_of(self.data, FLOAT32), array_of(self.indices, INT32), array_of(self.indptr, INT32)
        matrix = sparse.csr_matrix(arrays, shape=self.shape, copy=False)
        matrix.has_canonical_format = True  # it was checked; spares SciPy the look
        return matrix

    @property
    def labels(self) -> list[Label | None] | NDArray[np.int64]:
        """n entries, None where unlabelled; an int64 array when they came packed."""
        if self.packed_labels is not None:
            return array_of(self.packed_labels, INT64)
        return list[Label | None]([None]) * self.shape[0] if self.truth is None else self.truth

    @property
    def weights(self) -> NDArray[np.float32] | None:
        """(n,) finite and >= 0; None when absent."""
        return None if self.packed_weights is None else array_of(self.packed_weights, FLOAT32)


_DEFAULT_LIMITS = Limits()


def decode_batch(payload: bytes | None, limits: Limits = _DEFAULT_LIMITS) -> Batch:
    """Reads one record's value; a pure function of the bytes and the limits.

    Raises `RejectedRecord` and nothing else, with the first reason that applies in the order of these lines.
    """
    if not payload:
        raise RejectedRecord(DeadLetterReason.EMPTY, "the record has no value")
    if len(payload) > limits.record_bytes:
        raise _beyond("bytes", len(payload), limits.record_bytes, "record_bytes")
    unpacked = unpack(payload)
    check_version(unpacked.fields)
    n_rows, n_features = _shape(unpacked.fields)
    _check_limits(unpacked.fields, n_rows, n_features, limits)
    batch = _batch(unpacked, n_rows, n_features)
    check_finite("data", array_of(batch.data, FLOAT32))
    if batch.weights is not None:
        check_finite("weights", batch.weights)
    return batch


def truth_of(labels: list[Label | None] | NDArray[np.int64]) -> list[Label | None] | None:
    """The labels as a list, None when no row has one."""
    if isinstance(labels, np.ndarray):
        packed: list[Label | None] = labels.tolist()
        return packed
    return None if labels.count(None) == len(labels) else labels


def encode_batch(
    X: Any,
    labels: Sequence[Label | None] | ArrayLike | None = None,
    *,
    weights: ArrayLike | None = None,
    ids: Sequence[Label] | ArrayLike | None = None,
    ts: int | np.integer[Any] | None = None,
) -> bytes:
    """One record's value from a CSR matrix or 2-D array `X` (n, n_features) and n labels, weights, ids.

    Casts to float32, sorts columns and sums duplicates (on a copy). Raises `ValueError` for what the format forbids,
    NaN and infinity among it, so that a producer cannot send a dead letter by accident; only sizes are up to the
    service's `limits.*`.
    """
    matrix = _canonical(X)
    n_rows, n_features = matrix.shape
    fields: dict[str, Any] = {
        "v": VERSION,
        "shape": [n_rows, n_features],
        "indptr": matrix.indptr.astype(INT32).tobytes(),
        "indices": matrix.indices.astype(INT32).tobytes(),
        "data": matrix.data.astype(FLOAT32).tobytes(),
    }
    if labels is not None:
        fields["labels"] = _encodable_labels(labels, n_rows)
    if weights is not None:
        fields["weights"] = _encodable_weights(weights, n_rows)
    if ids is not None:
        fields["ids"] = scalars("ids", _plain_list("ids", ids), n_rows, nil=False)
    if ts is not None:
        fields["ts"] = int(ts) if isinstance(ts, np.integer) else ts
        if not is_int64(fields["ts"]):
            raise ValueError(f"ts is {ts!r}, expected whole milliseconds since the epoch")
    return bytes(msgpack.packb(fields))


# Decoding, in the order of the reasons.


def _beyond(what: str, found: int, allowed: int, setting: str) -> RejectedRecord:
    return RejectedRecord(DeadLetterReason.LIMITS, f"{found} {what}, limits.{setting} is {allowed}")


def _shape(fields: dict[str, Any]) -> tuple[int, int]:
    shape = fields.get("shape")
    if type(shape) is not list or len(shape) != 2 or not all(is_int64(side) and side >= 1 for side in shape):
        raise schema("shape must be an array of two ints, both at least 1")
    return shape[0], shape[1]


def _check_limits(fields: dict[str, Any], n_rows: int, n_features: int, limits: Limits) -> None:
    if n_rows > limits.rows:
        raise _beyond("rows", n_rows, limits.rows, "rows")
    if n_features > limits.features:
        raise _beyond("columns", n_features, limits.features, "features")
    claims = [len(value) // 4 for value in (fields.get("indices"), fields.get("data")) if type(value) is bytes]
    if (nnz := max(claims, default=0)) > limits.nnz:
        raise _beyond("non-zeros", nnz, limits.nnz, "nnz")
    labels = fields.get("labels")
    if type(labels) is list and (longest := longest_label_bytes(labels)) > limits.label_bytes:
        raise _beyond("bytes in a label", longest, limits.label_bytes, "label_bytes")


def _batch(unpacked: Unpacked, n_rows: int, n_features: int) -> Batch:
    """Everything else that the table forbids."""
    check_keys(unpacked, REQUIRED, OPTIONAL)
    fields = unpacked.fields
    indptr = vector("indptr", fields["indptr"], INT32, n_rows + 1)
    indices = vector("indices", fields["indices"], INT32, None)
    vector("data", fields["data"], FLOAT32, len(indices))
    _check_rows(indptr, len(indices))
    _check_columns(indptr, indices, n_features)
    labels = _labels(fields["labels"], n_rows) if "labels" in fields else []
    weights = vector("weights", fields["weights"], FLOAT32, n_rows) if "weights" in fields else None
    if weights is not None and (weights < 0).any():
        raise schema(f"weights[{int(np.flatnonzero(weights < 0)[0])}] is negative")
    ids = scalars("ids", fields["ids"], n_rows, nil=False) if "ids" in fields else None
    if "ts" in fields and not is_int64(fields["ts"]):
        raise schema("ts must be an int of 64 bits")
    return Batch(
        shape=(n_rows, n_features),
        indptr=fields["indptr"],
        indices=fields["indices"],
        data=fields["data"],
        truth=truth_of(labels),
        packed_labels=fields["labels"] if isinstance(labels, np.ndarray) else None,
        packed_weights=fields.get("weights"),
        ids=ids,
        ts=fields.get("ts"),
    )


def _labels(value: object, n_rows: int) -> list[Label | None] | NDArray[np.int64]:
    if type(value) is bytes:
        return vector("labels", value, INT64, n_rows)
    return scalars("labels", value, n_rows, nil=True)


def _check_rows(indptr: NDArray[np.int32], nnz: int) -> None:
    if indptr[0] != 0 or indptr[-1] != nnz:
        raise schema(f"indptr runs from {indptr[0]} to {indptr[-1]}, expected 0 to {nnz}")
    if (indptr[1:] < indptr[:-1]).any():
        raise schema("indptr decreases")


def _check_columns(indptr: NDArray[np.int32], indices: NDArray[np.int32], n_features: int) -> None:
    """Columns in range, strictly increasing inside a row; `indptr` is sound."""
    if not len(indices):
        return
    if indices.min() < 0 or indices.max() >= n_features:
        raise schema(f"columns {indices.min()} to {indices.max()}, expected 0 to {n_features - 1}")
    increasing = indices[1:] > indices[:-1]
    first_of_row = indptr[1:-1]
    first_of_row = first_of_row[(first_of_row > 0) & (first_of_row < len(indices))]
    increasing[first_of_row - 1] = True  # a new row may start anywhere
    if not increasing.all():
        raise schema("columns do not strictly increase inside a row")


# Encoding.


def _canonical(X: Any) -> sparse.csr_matrix:
    if getattr(X, "ndim", None) != 2:
        raise ValueError(f"X is {type(X).__name__}, expected a CSR matrix or an array with 2 dimensions")
    if X.shape[0] < 1 or X.shape[1] < 1:
        raise ValueError(f"X has shape {tuple(X.shape)}, expected at least one row and one column")
    if X.dtype.kind not in "biuf":
        raise ValueError(f"X has dtype {X.dtype}, expected real numbers")
    with np.errstate(over="ignore"):  # what float32 cannot hold is infinite, and refused below
        matrix = sparse.csr_matrix(X, dtype=np.float32)
        matrix.check_format(full_check=True)  # also drops spare room behind the last non-zero
        if not matrix.has_canonical_format:
            matrix = matrix.copy()
            matrix.sum_duplicates()
    if max(matrix.nnz, matrix.shape[1] - 1) > _INT32_MAX:
        raise ValueError(f"X has {matrix.nnz} non-zeros and {matrix.shape[1]} columns, int32 cannot count them")
    if not np.isfinite(matrix.data).all():
        raise ValueError("X holds NaN, infinity or a number beyond float32")
    return matrix


def _encodable_labels(labels: Any, n_rows: int) -> bytes | list[Any]:
    if isinstance(labels, np.ndarray) and labels.dtype.kind in "iu":
        if labels.shape != (n_rows,):
            raise ValueError(f"labels have shape {labels.shape}, expected ({n_rows},)")
        if not fits_int64([int(labels.min()), int(labels.max())]):
            raise ValueError("labels hold an int beyond 64 bits")
        return labels.astype(INT64).tobytes()
    return scalars("labels", _plain_list("labels", labels), n_rows, nil=True)


def _plain_list(name: str, values: Any) -> list[Any]:
    """A list of Python's own scalars; NumPy's become theirs."""
    if isinstance(values, (str, bytes, dict)):
        raise ValueError(f"{name} is one {type(values).__name__}, expected a sequence with one entry for each row")
    return [value.item() if isinstance(value, np.generic) else value for value in values]


def _encodable_weights(weights: ArrayLike, n_rows: int) -> bytes:
    with np.errstate(over="ignore"):
        array = np.asarray(weights).astype(np.float32)
    if array.shape != (n_rows,):
        raise ValueError(f"weights have shape {array.shape}, expected ({n_rows},)")
    if not np.isfinite(array).all() or (array < 0).any():
        raise ValueError("weights must be finite and at least 0")
    return array.astype(FLOAT32).tobytes()

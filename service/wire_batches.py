"""Many small train records at once: the decisions of `decode_batch` at a tenth of its cost.

Records of one layout, the same keys with values of the same types, are checked together, as one array of whatever they
hold. A group that is not sound as a whole is halved until its odd records are among few. These, and records that are
large or of no known layout, go to `decode_batch`, which alone knows why a record is rejected.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from itertools import chain, repeat
from typing import Any, TypeVar

import msgpack
import numpy as np
from numpy.typing import NDArray

from prototide.service.wire_batch import OPTIONAL, REQUIRED, Batch, Limits, decode_batch, truth_of
from prototide.service.wire_fields import (
    FLOAT32,
    INT32,
    INT64,
    VERSION,
    Label,
    RejectedRecord,
    array_of,
    fits_int64,
    longest_label_bytes,
    scalars,
)

SMALL_BYTES = 16 * 1024  # above, a record is worth the calls of its own; also bounds what unpacking may cost
FEW = 4  # records that are not worth halving
_FIXMAP = 0x80  # msgpack's first byte of a map with few keys, plus their number
_KINDS: dict[str, tuple[type, ...]] = {
    "v": (int,),
    "shape": (list,),
    **dict.fromkeys(("indptr", "indices", "data", "weights"), (bytes,)),
    "labels": (list, bytes),
    "ids": (list,),
    "ts": (int,),
}
_unpackb = partial(msgpack.unpackb, max_ext_len=0)
_Scalar = TypeVar("_Scalar", np.int32, np.int64, np.float32)
_Layout = tuple[tuple[str, ...], tuple[type, ...]]


def decode_batches(payloads: Sequence[bytes | None], limits: Limits) -> list[Batch | RejectedRecord]:
    """What `decode_batch` returns or raises for each."""
    decoded: list[Batch | RejectedRecord | None] = [None] * len(payloads)
    groups: defaultdict[_Layout, list[tuple[int, Any]]] = defaultdict(list)
    most_bytes = min(SMALL_BYTES, limits.record_bytes)
    for number, payload in enumerate(payloads):
        if payload and len(payload) <= most_bytes and (fields := _unpacked(payload)):
            values = fields.values()
            groups[tuple(fields), tuple(map(type, values))].append((number, values))
    for layout, members in groups.items():
        if _is_known(layout):
            for number, batch in _sound(layout[0], members, limits):
                decoded[number] = batch
    return [
        _alone(payload, limits) if batch is None else batch for payload, batch in zip(payloads, decoded, strict=True)
    ]


def _unpacked(payload: bytes) -> dict[str, Any] | None:
    """The map of a small record whose keys come once each."""
    try:
        fields = _unpackb(payload)
    except Exception:  # `decode_batch` says why
        return None
    return fields if type(fields) is dict and payload[0] == _FIXMAP + len(fields) else None


@cache
def _is_known_name(name: str, kind: type) -> bool:
    return kind in _KINDS.get(name, ())


def _is_known(layout: _Layout) -> bool:
    names, kinds = layout
    return REQUIRED <= set(names) <= REQUIRED | OPTIONAL and all(map(_is_known_name, names, kinds))


def _alone(payload: bytes | None, limits: Limits) -> Batch | RejectedRecord:
    try:
        return decode_batch(payload, limits)
    except RejectedRecord as rejected:
        return rejected.with_traceback(None)


def _sound(names: Sequence[str], members: Sequence[tuple[int, Any]], limits: Limits) -> Iterable[tuple[int, Batch]]:
    """The sound ones among records of one layout, by number."""
    columns = dict(zip(names, zip(*(values for _, values in members), strict=True), strict=True))
    batches = _Group(columns, limits).batches()
    if batches is not None:
        return zip([number for number, _ in members], batches, strict=True)
    if len(members) <= FEW:
        return ()
    middle = len(members) // 2
    return chain(_sound(names, members[:middle], limits), _sound(names, members[middle:], limits))


@dataclass(frozen=True, slots=True, eq=False)
class _Group:
    """Records of one known layout: each key's values, record by record."""

    columns: Mapping[str, Sequence[Any]]
    limits: Limits

    def batches(self) -> list[Batch] | None:
        """All of them, None when one is not sound."""
        shapes = self._shapes()
        if shapes is None or set(self.columns["v"]) != {VERSION}:
            return None
        rows, widths = shapes[:, 0], shapes[:, 1]
        nnz = _lengths(self.columns["data"]) // FLOAT32.itemsize
        if not (
            nnz.max() <= self.limits.nnz
            and self._have_length("data", nnz, FLOAT32)
            and self._have_length("indices", nnz, INT32)
            and self._have_length("indptr", rows + 1, INT32)
        ):
            return None
        indptr, indices = _joined(self.columns["indptr"], INT32), _joined(self.columns["indices"], INT32)
        data = _joined(self.columns["data"], FLOAT32)
        if not (
            _rows_are_sound(indptr, rows, nnz)
            and _columns_are_sound(indptr, indices, rows, nnz, widths)
            and np.isfinite(data).all()
            and self._scalars_are_sound(rows)
        ):
            return None
        truths = self._truths(rows)
        if truths is None or not self._weights_are_sound(rows):
            return None
        column, absent = self.columns, repeat(None)
        packed = "labels" in column and type(column["labels"][0]) is bytes
        return list(
            map(
                Batch,
                map(tuple, column["shape"]),
                column["indptr"],
                column["indices"],
                column["data"],
                truths,
                column["labels"] if packed else absent,
                column.get("weights", absent),
                column.get("ids", absent),
                column.get("ts", absent),
            )
        )

    def _shapes(self) -> NDArray[np.int64] | None:
        """(records, 2) rows and columns inside the limits."""
        shapes = self.columns["shape"]
        if set(map(len, shapes)) != {2}:
            return None
        sides: list[Any] = list(chain.from_iterable(shapes))
        if set(map(type, sides)) != {int} or not fits_int64(sides):
            return None
        array = np.array(sides, np.int64).reshape(-1, 2)
        most = (self.limits.rows, self.limits.features)
        return array if (array >= 1).all() and (array <= most).all() else None

    def _have_length(self, name: str, items: NDArray[np.int64], dtype: np.dtype[Any]) -> bool:
        return bool((_lengths(self.columns[name]) == items * dtype.itemsize).all())

    def _scalars_are_sound(self, rows: NDArray[np.int64]) -> bool:
        """Ids, and the event time."""
        times = self.columns.get("ts")
        ids = self.columns.get("ids")
        return (times is None or fits_int64(times)) and (
            ids is None or self._flat_scalars("ids", ids, rows, nil=False) is not None
        )

    def _flat_scalars(self, name: str, lists: Sequence[Any], rows: NDArray[np.int64], *, nil: bool) -> list[Any] | None:
        """All entries of lists of that many entries."""
        if (_lengths(lists) != rows).any():
            return None
        flat = list(chain.from_iterable(lists))
        try:
            return scalars(name, flat, len(flat), nil=nil)
        except RejectedRecord:
            return None

    def _truths(self, rows: NDArray[np.int64]) -> Iterable[list[Label | None] | None] | None:
        """Each record's labels, None for a record without any; None when they are not sound."""
        labels = self.columns.get("labels")
        if labels is None:
            return repeat(None)
        if type(labels[0]) is bytes:
            if not self._have_length("labels", rows, INT64):
                return None
            flat: list[Any] = _joined(labels, INT64).tolist()
            ends = np.cumsum(rows)
            return [flat[begin:end] for begin, end in zip((ends - rows).tolist(), ends.tolist(), strict=True)]
        found = self._flat_scalars("labels", labels, rows, nil=True)
        if found is None or longest_label_bytes(found) > self.limits.label_bytes:
            return None
        return labels if None not in found else map(truth_of, labels)

    def _weights_are_sound(self, rows: NDArray[np.int64]) -> bool:
        if "weights" not in self.columns:
            return True
        if not self._have_length("weights", rows, FLOAT32):
            return False
        weights = _joined(self.columns["weights"], FLOAT32)
        return bool(np.isfinite(weights).all() and (weights >= 0).all())


def _lengths(values: Sequence[Any]) -> NDArray[np.int64]:
    return np.fromiter(map(len, values), np.int64, len(values))


def _joined(values: Sequence[bytes], dtype: np.dtype[_Scalar]) -> NDArray[_Scalar]:
    """One array of all values (read-only)."""
    return array_of(b"".join(values), dtype)


def _rows_are_sound(indptr: NDArray[np.int32], rows: NDArray[np.int64], nnz: NDArray[np.int64]) -> bool:
    """Each record's offsets run from 0 to its non-zeros and never decrease."""
    ends = np.cumsum(rows + 1)
    begins = ends - rows - 1
    decreasing = indptr[1:] < indptr[:-1]
    decreasing[ends[:-1] - 1] = False  # the next record begins at 0 again
    return bool((indptr[begins] == 0).all() and (indptr[ends - 1] == nnz).all() and not decreasing.any())


def _columns_are_sound(
    indptr: NDArray[np.int32],
    indices: NDArray[np.int32],
    rows: NDArray[np.int64],
    nnz: NDArray[np.int64],
    widths: NDArray[np.int64],
) -> bool:
    """In range, strictly increasing inside a row; `indptr` is sound."""
    if not len(indices):
        return True
    if indices.min() < 0 or (indices >= np.repeat(widths, nnz)).any():
        return False
    first_of_row = indptr + np.repeat(np.cumsum(nnz) - nnz, rows + 1)
    first_of_row = first_of_row[(first_of_row > 0) & (first_of_row < len(indices))]
    increasing = indices[1:] > indices[:-1]
    increasing[first_of_row - 1] = True  # a new row may start anywhere
    return bool(increasing.all())

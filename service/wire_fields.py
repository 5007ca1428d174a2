"""What both topics' formats share: reasons, a strict unpacker, checks of single fields.

Every check raises :class:`RejectedRecord`; the callers decide the order in which they run, because the first reason
that applies is the one that counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

import msgpack
import numpy as np
from numpy.typing import NDArray

VERSION = 1
INT64_MIN, INT64_MAX = -(2**63), 2**63 - 1

# The wire's dtypes, whatever the machine's byte order.
INT32, INT64, FLOAT32 = np.dtype("<i4"), np.dtype("<i8"), np.dtype("<f4")

# A map or an array costs its sender a byte and Python some 60: nothing in the formats needs more than a handful.
_MAX_KEYS = 1024
_MAX_ARRAYS = 1024

Label = int | str
_Scalar = TypeVar("_Scalar", np.int32, np.int64, np.float32)


class DeadLetterReason(StrEnum):
    """Why a record is in the dead-letter topic: header ``dlq.reason``."""

    EMPTY = "empty"
    LIMITS = "limits"
    DECODE = "decode"
    VERSION = "version"
    SCHEMA = "schema"
    NONFINITE = "nonfinite"
    POISON = "poison"


class RejectedRecord(ValueError):  # noqa: N818 - the wire specification's name
    """A record's bytes are not what the format asks: ``reason``, and ``detail``, one line for a person."""

    def __init__(self, reason: DeadLetterReason, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True, eq=False)
class Unpacked:
    """A map as it came: ``fields`` by key (the last of equal keys), and the keys that came more than once."""

    fields: dict[str, Any]
    duplicates: tuple[str, ...]


class _Nested:
    """Stands for a map or array that no format has a place for, so that a flood of them costs no memory."""


_MAP, _ARRAY = _Nested(), _Nested()


def unpack(payload: bytes) -> Unpacked:
    """Reads the one msgpack map of a value whose length the caller has bounded.

    Raises `RejectedRecord`: `DECODE` for whatever msgpack refuses, extension types, keys that are not strings and
    absurd lengths; `SCHEMA` for something else than a map.
    """
    newest_pairs: list[tuple[str, Any]] = []
    arrays = 0

    def keep_newest_map(pairs: list[tuple[str, Any]]) -> _Nested:
        # The outermost map is the last to be complete; inner ones are forbidden, only their keys matter.
        nonlocal newest_pairs
        for key, _ in pairs:
            if type(key) is not str:
                raise ValueError("a map key is not a string")
        newest_pairs = pairs
        return _MAP

    def keep_few_arrays(array: list[Any]) -> list[Any] | _Nested:
        nonlocal arrays
        arrays += 1
        return array if arrays <= _MAX_ARRAYS else _ARRAY

    size = len(payload)
    try:
        value = msgpack.unpackb(
            payload,
            raw=False,
            strict_map_key=True,
            object_pairs_hook=keep_newest_map,
            list_hook=keep_few_arrays,
            ext_hook=_refuse_extension,
            max_str_len=size,
            max_bin_len=size,
            max_array_len=size,
            max_map_len=_MAX_KEYS,
            max_ext_len=0,  # also keeps msgpack from making a Timestamp, which passes by the hook
        )
    except Exception as error:  # whatever the bytes are, they are a dead letter
        said = " ".join(str(error).split())
        raise RejectedRecord(
            DeadLetterReason.DECODE, f"msgpack cannot unpack it: {type(error).__name__} {said}".rstrip()
        ) from None
    if value is not _MAP:
        raise RejectedRecord(DeadLetterReason.SCHEMA, f"the value is {_kind(value)}, expected one map")
    fields = dict(newest_pairs)
    if len(fields) == len(newest_pairs):
        return Unpacked(fields, ())
    counts = Counter(key for key, _ in newest_pairs)
    return Unpacked(fields, tuple(key for key, count in counts.items() if count > 1))


def _refuse_extension(code: int, data: bytes) -> None:
    raise ValueError(f"extension type {code}")


def _kind(value: object) -> str:
    """A value's type for a message; never the value: payloads stay out of logs."""
    names = {dict: "a map", list: "an array", bytes: "bin", str: "a string", bool: "a boolean", type(None): "nil"}
    if isinstance(value, _Nested):
        return "a map" if value is _MAP else "an array"
    return names.get(type(value), f"of type {type(value).__name__}")


def schema(detail: str) -> RejectedRecord:
    """What the format's table forbids."""
    return RejectedRecord(DeadLetterReason.SCHEMA, detail)


def is_int64(value: object) -> bool:
    """An int that fits 64 bits; a boolean is none."""
    return type(value) is int and INT64_MIN <= value <= INT64_MAX


def check_version(fields: dict[str, Any]) -> None:
    """`VERSION` when `v` is an int but not 1, `SCHEMA` when it is no int."""
    version = fields.get("v")
    if type(version) is not int:
        raise schema(f"v is {_kind(version)}, expected the int 1" if "v" in fields else "v is missing")
    if version != VERSION:
        raise RejectedRecord(DeadLetterReason.VERSION, f"v is {version}, this service reads {VERSION}")


def check_keys(unpacked: Unpacked, required: frozenset[str], optional: frozenset[str]) -> None:
    """Every required key, no other than these, each once."""
    keys = unpacked.fields.keys()
    if missing := sorted(required - keys):
        raise schema(f"missing: {', '.join(missing)}")
    if unknown := sorted(keys - required - optional):
        shown = ", ".join(repr(key[:40]) for key in unknown[:5])
        raise schema(f"unknown: {shown}{', ...' if len(unknown) > 5 else ''}")
    if unpacked.duplicates:
        raise schema(f"more than once: {', '.join(unpacked.duplicates)}")


def vector(name: str, value: object, dtype: np.dtype[_Scalar], length: int | None) -> NDArray[_Scalar]:
    """A `bin` as an array over the unpacked bytes (read-only), of exactly `length` items unless None."""
    if type(value) is not bytes:
        raise schema(f"{name} is {_kind(value)}, expected bin {dtype.name}")
    if length is None and len(value) % dtype.itemsize:
        raise schema(f"{name} has {len(value)} bytes, expected a multiple of {dtype.itemsize}")
    if length is not None and len(value) != length * dtype.itemsize:
        raise schema(f"{name} has {len(value)} bytes, expected {length} x {dtype.itemsize}")
    return array_of(value, dtype)


def array_of(value: bytes | bytearray, dtype: np.dtype[_Scalar]) -> NDArray[_Scalar]:
    """A `bin` as an array over its bytes."""
    array = np.frombuffer(value, dtype)
    return array.astype(dtype.newbyteorder("="), copy=False)  # copies on big-endian machines only


def scalars(name: str, value: object, length: int, *, nil: bool) -> list[Any]:
    """An array of `length` strings and 64-bit ints, with `nil` where that is allowed."""
    if type(value) is not list:
        raise schema(f"{name} is {_kind(value)}, expected an array")
    if len(value) != length:
        raise schema(f"{name} has {len(value)} entries, expected {length}")
    types = set(map(type, value))
    if strange := types - ({str, int, type(None)} if nil else {str, int}):
        odd = next(i for i, item in enumerate(value) if type(item) in strange)
        allowed = "an int, a string or nil" if nil else "an int or a string"
        raise schema(f"{name}[{odd}] is {_kind(value[odd])}, expected {allowed}")
    ints = value if types == {int} else [item for item in value if type(item) is int]
    if ints and not fits_int64(ints):
        raise schema(f"{name} holds an int beyond 64 bits")
    return value


def fits_int64(ints: Sequence[int]) -> bool:
    """True when every one of a non-empty run of ints fits 64 bits."""
    return min(ints) >= INT64_MIN and max(ints) <= INT64_MAX


def longest_label_bytes(labels: Sequence[object]) -> int:
    """Length in UTF-8 of the longest string among `labels`, 0 without one."""
    strings = {label for label in labels if isinstance(label, str)}  # classes repeat: encode each once
    return max((len(label.encode()) for label in strings), default=0)


def check_finite(name: str, values: NDArray[np.float32]) -> None:
    """`NONFINITE` for NaN and infinity."""
    if not np.isfinite(values).all():
        where = int(np.flatnonzero(~np.isfinite(values))[0])
        raise RejectedRecord(DeadLetterReason.NONFINITE, f"{name}[{where}] is NaN or infinite")

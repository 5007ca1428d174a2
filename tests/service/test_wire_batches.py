"""Records decoded together are decided as records decoded alone: `decode_batch` is the reference."""

from __future__ import annotations

import random
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from prototide.service import wire_batches
from prototide.service.wire import Batch, Limits, RejectedRecord, decode_batch, encode_batch
from prototide.service.wire_batches import decode_batches
from tests.chaos.fuzz import LIMITS, corpus, mutated


def described(decoded: Batch | RejectedRecord) -> tuple[Any, ...]:
    if isinstance(decoded, RejectedRecord):
        return decoded.reason, decoded.detail
    arrays = (decoded.X.indptr, decoded.X.indices, decoded.X.data, decoded.weights)
    return (
        decoded.shape,
        *(None if array is None else (array.dtype, array.tobytes(), array.flags.writeable) for array in arrays),
        type(decoded.labels),
        [(type(label), label) for label in decoded.labels],
        decoded.ids,
        decoded.ts,
    )


def alone(payload: bytes | None, limits: Limits) -> tuple[Any, ...]:
    try:
        return described(decode_batch(payload, limits))
    except RejectedRecord as rejected:
        return described(rejected)


def check(payloads: list[bytes | None], limits: Limits = LIMITS) -> None:
    together = [described(each) for each in decode_batches(payloads, limits)]
    for payload, one in zip(payloads, together, strict=True):
        assert one == alone(payload, limits), payload and payload.hex()


@given(st.integers(0, 2**32), st.integers(0, 40), st.floats(0, 1))
def test_mutated_records_among_valid_ones(seed: int, count: int, share: float) -> None:
    chance, values = random.Random(seed), corpus(seed)
    check([mutated(values, chance) if chance.random() < share else chance.choice(values) for _ in range(count)])


def one(**changed: Any) -> bytes:
    fields: dict[str, Any] = {
        "v": 1,
        "shape": [2, 5],
        "indptr": np.array([0, 2, 3], "<i4").tobytes(),
        "indices": np.array([0, 3, 4], "<i4").tobytes(),
        "data": np.array([1, 0.5, 2], "<f4").tobytes(),
    }
    fields |= changed
    return bytes(msgpack.packb({name: value for name, value in fields.items() if value is not ...}))


NAN, NEGATIVE = np.array([1, np.nan], "<f4").tobytes(), np.array([1, -1], "<f4").tobytes()


@pytest.mark.parametrize(
    "odd",
    [
        one(v=2),
        one(v=True),
        one(v=2**63),
        one(shape=[2, 4]),  # a column beyond
        one(shape=[2, 0]),
        one(shape=[0, 5]),
        one(shape=[2, True]),
        one(shape=[2, 5, 1]),
        one(shape=[2, 2**63]),
        one(shape=[2, 5_000]),  # over the limits
        one(shape=[3, 5]),
        one(indptr=np.array([1, 2, 3], "<i4").tobytes()),
        one(indptr=np.array([0, 2, 2], "<i4").tobytes()),
        one(indptr=np.array([0, 4, 3], "<i4").tobytes()),
        one(indptr=np.array([0, -1, 3], "<i4").tobytes()),
        one(indptr=b"123"),
        one(indices=np.array([3, 0, 4], "<i4").tobytes()),
        one(indices=np.array([3, 3, 4], "<i4").tobytes()),
        one(indices=np.array([-1, 3, 4], "<i4").tobytes()),
        one(indices=b"123"),
        one(data=np.array([1, np.inf, 2], "<f4").tobytes()),
        one(data=b"123"),
        one(data=b""),
        one(labels=[1]),
        one(labels=[1, 2.5]),
        one(labels=[True, 1]),
        one(labels=[1, 2**63]),
        one(labels=["a", "x" * 40]),
        one(labels=["a", ["b"]]),
        one(labels=b"1234567"),
        one(weights=NAN),
        one(weights=NEGATIVE),
        one(weights=b"1"),
        one(ids=[1, None]),
        one(ids=[1]),
        one(ids=[1, 2**64 - 1]),
        one(ts=2**63),
        one(ts="now"),
        one(more=1),
        one(data=...),
        one()[:-1],
        one() + b"\x00",
        b"\xde\x00" + one()[:1].replace(b"\x85", b"\x05") + one()[1:],  # a longer form of the map's first byte
        b"\x86" + one()[1:] + msgpack.packb("v") + msgpack.packb(1),  # a key twice
        b"\x90",
        b"",
        None,
    ],
)
def test_an_odd_record_costs_its_neighbours_nothing(odd: bytes | None) -> None:
    good = one(labels=["a", None], weights=np.ones(2, "<f4").tobytes(), ids=["x", 2], ts=5)
    check([one(), good, odd, one(), good])
    check([odd] * 3 + [one()] * 20)
    check([odd])


def test_rows_without_non_zeros_at_every_end() -> None:
    empty, full = sparse.csr_matrix((3, 7), dtype=np.float32), sparse.csr_matrix(np.eye(3, 7, dtype=np.float32))
    mixed = sparse.vstack([empty, full, empty]).tocsr()
    check([encode_batch(X, labels) for X in (empty, full, mixed, empty) for labels in (None, [1] * X.shape[0])])


def test_small_sound_records_are_not_decoded_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(wire_batches, "decode_batch")
    values: list[bytes | None] = list(corpus(1))
    assert all(isinstance(each, Batch) for each in decode_batches(values, LIMITS))


def test_a_large_record_is_decoded_alone() -> None:
    check([encode_batch(np.ones((100, 100), np.float32)), one()], Limits())


def test_nothing_is_nothing() -> None:
    assert decode_batches([], LIMITS) == []

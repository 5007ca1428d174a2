from __future__ import annotations

import dataclasses
import itertools
import json
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from prototide.service.wire import (
    Batch,
    DeadLetterReason,
    Limits,
    Predictions,
    RejectedRecord,
    decode_batch,
    decode_predictions,
    encode_batch,
    encode_predictions,
    encode_predictions_within,
)
from prototide.service.wire_predictions import Part, encode_parts

SPECIFICATION = Path(__file__).parents[3] / "shared" / "spec" / "wire_vectors.json"
OWN = json.loads(Path(__file__).with_name("wire_vectors_own.json").read_text())
SPECIFIED = json.loads(SPECIFICATION.read_text())["vectors"] if SPECIFICATION.exists() else []

TWO_ROWS = {
    "v": 1,
    "shape": [2, 5],
    "indptr": np.array([0, 2, 3], "<i4").tobytes(),
    "indices": np.array([0, 3, 4], "<i4").tobytes(),
    "data": np.array([1, 0.5, 2], "<f4").tobytes(),
}
X = sparse.csr_matrix(np.array([[1, 0, 0, 0.5, 0], [0, 0, 0, 0, 2]], np.float32))


def names(vectors: list[dict[str, Any]]) -> list[str]:
    return [vector["name"] for vector in vectors]


def reason_of(payload: bytes | None, limits: Limits | None = None) -> str:
    with pytest.raises(RejectedRecord) as caught:
        decode_batch(payload, limits or Limits())
    assert caught.value.detail.isprintable()
    return caught.value.reason


def rows_of(matrix: sparse.csr_matrix) -> list[dict[str, float]]:
    return [
        {str(column): float(value) for column, value in zip(row.indices, row.data, strict=True)}
        for row in (matrix[i] for i in range(matrix.shape[0]))
    ]


def meaning_of(batch: Batch) -> dict[str, Any]:
    meaning: dict[str, Any] = {"rows": rows_of(batch.X), "labels": np.asarray(batch.labels, object).tolist()}
    if batch.weights is not None:
        meaning["weights"] = batch.weights.tolist()
    return meaning | {name: value for name in ("ids", "ts") if (value := getattr(batch, name)) is not None}


def check_train_vector(vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["hex"])
    if vector["expect"] == "ok":
        assert meaning_of(decode_batch(payload)) == vector["meaning"]
    else:
        assert reason_of(payload) == vector["expect"]


@pytest.mark.skipif(not SPECIFIED, reason=f"THE SPECIFICATION'S WIRE VECTORS ARE NOT THERE: {SPECIFICATION}")
@pytest.mark.parametrize("vector", SPECIFIED, ids=names(SPECIFIED))
def test_vector_of_the_specification(vector: dict[str, Any]) -> None:
    check_train_vector(vector)


@pytest.mark.parametrize("vector", OWN["train"], ids=names(OWN["train"]))
def test_own_train_vector(vector: dict[str, Any]) -> None:
    check_train_vector(vector)


def meaning_of_predictions(predictions: Predictions) -> dict[str, Any]:
    fields = {field.name: getattr(predictions, field.name) for field in dataclasses.fields(predictions)}
    fields["source"] = list(predictions.source)
    plain = {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in fields.items()}
    return {name: value for name, value in plain.items() if value is not None and name != "v"}


@pytest.mark.parametrize("vector", OWN["predictions"], ids=names(OWN["predictions"]))
def test_own_predictions_vector(vector: dict[str, Any]) -> None:
    payload = bytes.fromhex(vector["hex"])
    if vector["expect"] == "ok":
        assert meaning_of_predictions(decode_predictions(payload)) == vector["meaning"]
    else:
        with pytest.raises(RejectedRecord) as caught:
            decode_predictions(payload)
        assert caught.value.reason == vector["expect"]


# What goes in comes out.

labels_of_both_kinds = st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1), st.text(max_size=20))
float32 = st.floats(-(2.0**100), 2.0**100, width=32)


@st.composite
def matrices(draw: st.DrawFn) -> sparse.csr_matrix:
    n_rows, n_features = draw(st.integers(1, 8)), draw(st.integers(1, 50))
    rows = [draw(st.lists(st.integers(0, n_features - 1), unique=True).map(sorted)) for _ in range(n_rows)]
    indptr = np.cumsum([0, *map(len, rows)], dtype=np.int32)
    data = [draw(float32) for _ in range(indptr[-1])]
    arrays = (np.array(data, np.float32), np.array([*itertools.chain(*rows)], np.int32), indptr)
    return sparse.csr_matrix(arrays, shape=(n_rows, n_features))


@given(st.data(), matrices())
def test_a_batch_survives_the_round_trip(data: st.DataObject, matrix: sparse.csr_matrix) -> None:
    n = matrix.shape[0]
    labels = data.draw(st.none() | st.lists(labels_of_both_kinds, min_size=n, max_size=n))
    ids = data.draw(st.none() | st.lists(labels_of_both_kinds.filter(lambda x: x is not None), min_size=n, max_size=n))
    weights = data.draw(st.none() | st.lists(st.floats(0, 2.0**100, width=32), min_size=n, max_size=n))
    ts = data.draw(st.none() | st.integers(-(2**63), 2**63 - 1))
    batch = decode_batch(encode_batch(matrix, labels, weights=weights, ids=ids, ts=ts))
    assert batch.X.shape == matrix.shape
    assert rows_of(batch.X) == rows_of(matrix)
    assert batch.labels == ([None] * n if labels is None else labels)
    assert list(map(type, batch.labels)) == list(map(type, [None] * n if labels is None else labels))
    assert (batch.ids, batch.ts) == (ids, ts)
    assert (None if batch.weights is None else batch.weights.tolist()) == weights


@given(st.binary(max_size=60))
def test_random_bytes_are_rejected_and_nothing_else(payload: bytes) -> None:
    reason_of(payload)


def test_mutated_records_are_decoded_or_rejected_and_nothing_else() -> None:
    good = encode_batch(X, ["spam", None], weights=[1, 0.25], ids=["a", 42], ts=1_700_000_000_123)
    seed = random.randrange(2**32)
    print("seed", seed)  # shown when the test fails
    generator = random.Random(seed)
    decoded = rejected = 0
    for _ in range(5000):
        mutated = bytearray(good)
        for _ in range(generator.randint(1, 4)):
            where = generator.randrange(len(mutated))
            match generator.randrange(3):
                case 0:
                    mutated[where] = generator.randrange(256)
                case 1:
                    del mutated[where]
                case _:
                    mutated.insert(where, generator.randrange(256))
        try:
            batch = decode_batch(bytes(mutated))
        except RejectedRecord:
            rejected += 1
        else:
            batch.X.check_format(full_check=True)
            assert np.isfinite(batch.X.data).all()
            decoded += 1
    assert decoded > 0
    assert rejected > decoded


# Decoding.


def test_the_matrix_views_the_bytes_and_is_read_only() -> None:
    matrix = decode_batch(encode_batch(X)).X
    assert matrix.has_canonical_format
    assert (matrix.dtype, matrix.indices.dtype, matrix.indptr.dtype) == (np.float32, np.int32, np.int32)
    for array in (matrix.data, matrix.indices, matrix.indptr):
        assert not array.flags.owndata
        assert not array.flags.writeable


def test_no_value_and_an_empty_value_are_empty() -> None:
    assert reason_of(None) == reason_of(b"") == DeadLetterReason.EMPTY


@pytest.mark.parametrize(
    ("limits", "setting"),
    [
        (Limits(record_bytes=100), "limits.record_bytes"),
        (Limits(rows=1), "limits.rows"),
        (Limits(features=4), "limits.features"),
        (Limits(nnz=2), "limits.nnz"),
        (Limits(label_bytes=3), "limits.label_bytes"),
    ],
)
def test_each_limit_is_enforced_and_named(limits: Limits, setting: str) -> None:
    with pytest.raises(RejectedRecord, match=setting) as caught:
        decode_batch(encode_batch(X, ["spam", "ham"], ids=["x" * 50, "y"]), limits)
    assert caught.value.reason == DeadLetterReason.LIMITS


def test_a_record_at_every_limit_is_taken() -> None:
    payload = encode_batch(X, ["spam", "ham"])
    limits = Limits(record_bytes=len(payload), rows=2, features=5, nnz=3, label_bytes=4)
    assert decode_batch(payload, limits).labels == ["spam", "ham"]


def test_too_many_bytes_count_before_what_they_are() -> None:
    assert reason_of(b"\xc1" * 11, Limits(record_bytes=10)) == DeadLetterReason.LIMITS
    assert reason_of(b"\xc1" * 10, Limits(record_bytes=10)) == DeadLetterReason.DECODE


def test_non_zeros_over_the_limit_count_before_what_they_are() -> None:
    unsorted = msgpack.packb({**TWO_ROWS, "indices": np.array([3, 0, 9], "<i4").tobytes()})
    assert reason_of(unsorted, Limits(nnz=2)) == DeadLetterReason.LIMITS
    assert reason_of(unsorted, Limits(nnz=3)) == DeadLetterReason.SCHEMA


def test_details_name_the_key_and_never_the_payload() -> None:
    with pytest.raises(RejectedRecord) as caught:
        decode_batch(msgpack.packb({**TWO_ROWS, "labels": ["private text", 1.25]}))
    assert "labels[1]" in caught.value.detail
    assert "private" not in str(caught.value)
    assert "1.25" not in str(caught.value)


def test_a_long_unknown_key_is_cut_in_the_detail() -> None:
    with pytest.raises(RejectedRecord) as caught:
        decode_batch(msgpack.packb({**TWO_ROWS, "x" * 10_000: 1, "line\nbreak": 1}))
    assert len(caught.value.detail) < 200
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize("item", [b"\x90", b"\x80", b"\x91\x90", b"\x81\xa0\x80"], ids=["[]", "{}", "[[]]", "{{}}"])
def test_a_flood_of_nested_values_does_not_fill_the_memory(item: bytes) -> None:
    size = 2**20
    count = size // len(item)
    payload = b"\x81\xa6labels\xdd" + count.to_bytes(4, "big") + item * count
    tracemalloc.start()
    try:
        assert reason_of(payload) == DeadLetterReason.SCHEMA
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * size


def test_truth_is_none_without_a_label_and_plain_otherwise() -> None:
    assert decode_batch(encode_batch(X)).truth is None
    assert decode_batch(encode_batch(X, [None, None])).truth is None
    assert decode_batch(encode_batch(X, [None, "a"])).truth == [None, "a"]
    packed = decode_batch(encode_batch(X, np.array([2**53 + 1, 2**53]))).truth
    assert packed == [2**53 + 1, 2**53]
    assert type(packed[0]) is int


# Encoding.


def test_unsorted_columns_are_sorted_and_duplicates_summed_without_touching_the_callers_matrix() -> None:
    matrix = sparse.csr_matrix(
        (np.array([1.0, 2.0, 3.0]), np.array([4, 0, 4], np.int64), np.array([0, 3], np.int64)), shape=(1, 5)
    )
    batch = decode_batch(encode_batch(matrix))
    assert rows_of(batch.X) == [{"0": 2.0, "4": 4.0}]
    assert matrix.indices.tolist() == [4, 0, 4]


@pytest.mark.parametrize(
    "container",
    [sparse.csr_array, sparse.coo_matrix, sparse.csc_array, lambda m: m.toarray(), lambda m: m.astype(np.float64)],
    ids=["csr_array", "coo", "csc", "dense", "float64"],
)
def test_other_containers_are_encoded_alike(container: Any) -> None:
    assert encode_batch(container(X)) == encode_batch(X)


def test_spare_room_behind_the_last_non_zero_is_not_sent() -> None:
    roomy = sparse.csr_matrix((np.ones(2, np.float32), np.array([0, 1]), np.array([0, 2])), shape=(1, 5))
    roomy.data, roomy.indices = np.ones(4, np.float32), np.array([0, 1, 7, 7], np.int32)
    assert rows_of(decode_batch(encode_batch(roomy)).X) == [{"0": 1.0, "1": 1.0}]
    assert len(roomy.data) == 4


def test_numpy_labels_and_ids_keep_their_types() -> None:
    batch = decode_batch(encode_batch(X, np.array(["1", "b"]), ids=np.array([1, 2], np.uint8), ts=np.int64(5)))
    assert batch.labels == ["1", "b"]
    assert (batch.ids, batch.ts) == ([1, 2], 5)
    packed = decode_batch(encode_batch(X, np.array([1, 2], np.uint8))).labels
    assert isinstance(packed, np.ndarray)
    assert packed.dtype == np.int64


MALFORMED = sparse.csr_matrix(X)
MALFORMED.indices = np.array([0, 3, 9], np.int32)


@pytest.mark.parametrize(
    ("matrix", "arguments"),
    [
        (X[:0], {}),
        (sparse.csr_matrix((2, 0)), {}),
        (np.ones(5), {}),
        ([[1.0]], {}),
        (np.array([["a"]]), {}),
        (np.array([[1j]]), {}),
        (np.array([[np.nan]]), {}),
        (np.array([[np.inf]]), {}),
        (np.array([[1e300]]), {}),
        (MALFORMED, {}),
        (X, {"labels": [1]}),
        (X, {"labels": [1.0, 2]}),
        (X, {"labels": [True, 2]}),
        (X, {"labels": [2**63, 2]}),
        (X, {"labels": [b"a", "b"]}),
        (X, {"labels": [[1], 2]}),
        (X, {"labels": "ab"}),
        (X, {"labels": np.array([True, False])}),
        (X, {"labels": np.array([1.0, 2.0])}),
        (X, {"labels": np.array([[1], [2]])}),
        (X, {"labels": np.array([2**64 - 1, 1], np.uint64)}),
        (X, {"labels": ["\ud800", "b"]}),
        (X, {"weights": [1.0]}),
        (X, {"weights": [1.0, -1.0]}),
        (X, {"weights": [1.0, np.nan]}),
        (X, {"weights": [1.0, 1e300]}),
        (X, {"ids": [1, None]}),
        (X, {"ids": [1]}),
        (X, {"ts": 1.5}),
        (X, {"ts": True}),
        (X, {"ts": 2**63}),
    ],
)
def test_a_producer_cannot_send_what_the_format_forbids(matrix: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        encode_batch(matrix, **arguments)


# Predictions.


def predictions(n: int = 3, k: int = 2) -> Predictions:
    return Predictions(
        source=("train", 3, 2**40),
        step=9,
        labels=["a", None, 7][:n],
        scores=np.array([1.5, 0, -0.25], np.float32)[:n],
        prototypes=np.array([2**60, -1, 0])[:n],
        top_k=k or None,
        top_labels=(["a", "b"] * n)[: n * k] if k else None,
        top_probs=np.full((n, k), 0.5, np.float32) if k else None,
        truth=["a", "c", 7][:n],
        ids=["row-1", 2, "row-3"][:n],
        ts=1_700_000_000_123,
    )


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
@pytest.mark.parametrize(("n", "k"), [(3, 2), (3, 0), (1, 1), (0, 2)])
def test_predictions_survive_the_round_trip_in_both_encodings(encoding: Any, n: int, k: int) -> None:
    before = predictions(n, k)
    after = decode_predictions(encode_predictions(before, encoding))
    flat = dataclasses.replace(before, top_probs=None if before.top_probs is None else before.top_probs.ravel())
    assert meaning_of_predictions(after) == meaning_of_predictions(flat)
    assert (after.source, after.v) == (before.source, 1)


def test_json_is_the_same_map_with_lists() -> None:
    fields = json.loads(encode_predictions(predictions(), "json"))
    packed = msgpack.unpackb(encode_predictions(predictions()))
    assert fields.keys() == packed.keys()
    assert fields["source"] == ["train", 3, 2**40]
    assert fields["prototypes"] == [2**60, -1, 0]
    assert np.array(fields["scores"], "<f4").tobytes() == packed["scores"]


def test_no_top_classes_leave_out_all_their_keys() -> None:
    fields = msgpack.unpackb(encode_predictions(dataclasses.replace(predictions(), top_k=0)))
    assert not {"top_k", "top_labels", "top_probs"} & fields.keys()


@pytest.mark.parametrize("encoding", ["msgpack", "json"])
def test_too_large_a_record_leaves_out_top_classes_then_truth_then_ids(encoding: Any) -> None:
    whole = predictions()
    payload, shortened = encode_predictions_within(whole, len(encode_predictions(whole, encoding)), encoding)
    assert (payload, shortened) == (encode_predictions(whole, encoding), False)
    left = []
    for _ in range(3):
        payload, shortened = encode_predictions_within(whole, len(payload) - 1, encoding)
        assert shortened
        decoded = decode_predictions(payload)
        assert decoded.labels == whole.labels
        assert (decoded.top_k, decoded.top_labels, decoded.top_probs) == (None, None, None)
        left.append((decoded.truth is not None, decoded.ids is not None))
    assert left == [(True, True), (False, True), (False, False)]
    if encoding == "json":  # what JSON cannot hold goes as msgpack
        last, payload = payload, encode_predictions_within(whole, len(payload) - 1, "json")[0]
        assert payload[:1] != b"{"
        assert decode_predictions(payload).labels == decode_predictions(last).labels
    with pytest.raises(ValueError, match=r"limits\.prediction_bytes"):
        encode_predictions_within(whole, 60, encoding)


# The light install.

LIGHT = """
import importlib.abc, sys

class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ModuleNotFoundError(f"not in the light install: {name}", name=name)

BLOCKED = set("pydantic prometheus_client typer rich safetensors river sklearn numba torch tqdm"
              " confluent_kafka pandas".split())
sys.meta_path.insert(0, Blocked())
import numpy as np
from prototide.service.wire import decode_batch, encode_batch
print(decode_batch(encode_batch(np.eye(2), ["a", 1])).labels)
"""


def test_the_light_install_is_enough() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.stderr) == ("['a', 1]", "")


@given(st.integers(0, 2**32), st.integers(0, 4), st.lists(st.integers(1, 4), min_size=1, max_size=6))
def test_parts_of_predictions_are_encoded_as_each_alone(seed: int, k: int, sizes: list[int]) -> None:
    numbers, n = np.random.default_rng(seed), sum(sizes)
    names: list[Any] = [None, "a", "é", 7, -(2**63), 2**64 - 1]

    def some(count: int) -> list[Any]:
        return [names[each] for each in numbers.integers(len(names), size=count)]

    whole = Predictions(
        source=("", 0, 0),
        step=int(numbers.integers(2**40)),
        labels=some(n),
        scores=numbers.random(n, np.float32),
        prototypes=numbers.integers(-1, 2**62, size=n),
        top_k=k or None,
        top_labels=some(n * k) if k else None,
        top_probs=numbers.random(n * k, np.float32) if k else None,
    )
    bounds = np.cumsum([0, *sizes]).tolist()
    parts: list[Part] = [
        (
            ("train", number, 2**40),
            some(size) if seed & 1 else None,
            some(size) if seed & 2 else None,
            seed & 4 or None,
        )
        for number, size in enumerate(sizes)
    ]
    expected = [
        encode_predictions(
            dataclasses.replace(
                whole,
                labels=whole.labels[a:b],
                scores=whole.scores[a:b],
                prototypes=whole.prototypes[a:b],
                top_labels=whole.top_labels[a * k : b * k] if whole.top_labels else None,
                top_probs=None if whole.top_probs is None else whole.top_probs[a * k : b * k],
                **dict(zip(("source", "truth", "ids", "ts"), part, strict=True)),
            )
        )
        for part, a, b in zip(parts, bounds[:-1], bounds[1:], strict=True)
    ]
    assert encode_parts(whole, parts, bounds) == expected

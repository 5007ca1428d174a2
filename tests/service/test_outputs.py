from __future__ import annotations

import hashlib

import numpy as np
import pytest

from prototide.service.broker import Record
from prototide.service.outputs import Outlet, dead_letter_output, prediction_output
from prototide.service.wire import DeadLetterReason, Predictions, RejectedRecord, decode_predictions


def record(value: bytes | None = b"v", key: bytes | None = b"k", headers: tuple[tuple[str, bytes], ...] = ()) -> Record:
    return Record("train", 5, 9, 1_234, key, value, headers)


def predictions(n: int = 50) -> Predictions:
    return Predictions(
        source=("train", 5, 9),
        step=1,
        labels=["some label"] * n,
        scores=np.zeros(n, np.float32),
        prototypes=np.zeros(n, np.int64),
        top_k=2,
        top_labels=["some label", None] * n,
        top_probs=np.zeros(2 * n, np.float32),
        truth=["a truth"] * n,
        ids=list(range(n)),
    )


def outlet(max_bytes: int = 10_000, partitions: int = 3) -> Outlet:
    return Outlet("out", partitions, max_bytes)


def test_the_partition_is_the_sources_modulo_how_many_there_are() -> None:
    assert [outlet(partitions=n).partition_for(record()) for n in (1, 2, 5, 6)] == [0, 1, 0, 5]


def test_a_prediction_that_fits_is_whole() -> None:
    output = prediction_output(record(), predictions(), outlet(), "msgpack")
    assert decode_predictions(output.value).ids == list(range(50))
    assert [name for name, _ in output.headers] == ["prototide-version", "prototide-source"]


@pytest.mark.parametrize("max_bytes", range(1_900, 5_000, 100))
def test_a_prediction_stays_inside_the_limit_with_key_and_headers(max_bytes: int) -> None:
    output = prediction_output(record(), predictions(), outlet(max_bytes), "msgpack")
    sent = decode_predictions(output.value)
    size = len(output.value) + len(output.key or b"") + sum(len(n) + len(v or b"") for n, v in output.headers)
    assert size <= max_bytes
    whole = sent.top_labels is not None
    assert (dict(output.headers).get("prototide-shortened") == "1") is not whole
    assert sent.labels == ["some label"] * 50


def test_the_key_is_the_last_to_be_left_out() -> None:
    output = prediction_output(record(key=b"k" * 9_900), predictions(), outlet(), "msgpack")
    assert output.key is None
    assert dict(output.headers)["prototide-shortened"] == "1"
    assert len(decode_predictions(output.value).labels) == 50


def test_a_prediction_that_cannot_fit_says_so() -> None:
    with pytest.raises(ValueError, match=r"limits\.prediction_bytes"):
        prediction_output(record(), predictions(), outlet(1_000), "msgpack")


REJECTED = RejectedRecord(DeadLetterReason.SCHEMA, "shape must be two ints")


def test_a_dead_letter_is_the_original_with_its_reason() -> None:
    output = dead_letter_output(record(headers=(("mine", b"1"), ("mine", b"2"))), REJECTED, outlet())
    assert (output.key, output.value) == (b"k", b"v")
    assert list(output.headers)[:2] == [("mine", b"1"), ("mine", b"2")]
    headers = dict(output.headers)
    assert {name: headers[name] for name in headers if name.startswith("dlq.") and name != "dlq.service-version"} == {
        "dlq.reason": "schema",
        "dlq.detail": "shape must be two ints",
        "dlq.topic": "train",
        "dlq.partition": "5",
        "dlq.offset": "9",
        "dlq.timestamp": "1234",
    }


def test_of_an_oversize_original_the_digest_is_kept() -> None:
    value = b"x" * 10_000
    output = dead_letter_output(record(value), REJECTED, outlet())
    headers = dict(output.headers)
    assert (output.key, output.value) == (b"k", b"")
    assert headers["dlq.value-sha256"] == hashlib.sha256(value).hexdigest()
    assert headers["dlq.value-bytes"] == "10000"


def test_an_oversize_key_and_oversize_headers_go_too() -> None:
    for huge in (record(key=b"k" * 10_000), record(headers=(("h", b"x" * 10_000),))):
        output = dead_letter_output(huge, REJECTED, outlet())
        assert output.key is None
        assert dict(output.headers)["dlq.offset"] == "9"
        assert "h" not in dict(output.headers)


def test_a_null_value_is_a_dead_letter_with_an_empty_one() -> None:
    assert dead_letter_output(record(None), REJECTED, outlet()).value == b""


def test_a_dead_letter_that_was_sent_once_more_tells_the_new_reason_only() -> None:
    rejected = RejectedRecord(DeadLetterReason.DECODE, "why")
    first = dead_letter_output(record(headers=(("own", b"x"),)), rejected, outlet())
    again = dead_letter_output(record(headers=tuple(first.headers)), rejected, outlet(partitions=1))  # type: ignore[arg-type]
    assert again.headers == first.headers
    assert again.headers[0] == ("own", b"x")


@pytest.mark.parametrize("max_bytes", range(1_500, 6_000, 500))
def test_a_dead_letter_stays_inside_the_limit_whatever_its_headers_letters(max_bytes: int) -> None:
    rejected = RejectedRecord(DeadLetterReason.SCHEMA, "é" * 100)
    bad = record(value=b"v" * 1_000, headers=tuple(("ключ" * 50, b"1") for _ in range(4)))
    output = dead_letter_output(bad, rejected, outlet(max_bytes))
    headers = [
        (name.encode(), text.encode() if isinstance(text, str) else text or b"") for name, text in output.headers
    ]
    assert len(output.value) + len(output.key or b"") + sum(len(n) + len(v) for n, v in headers) <= max_bytes

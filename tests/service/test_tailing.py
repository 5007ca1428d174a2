"""Reading topics of outputs on the embedded broker."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from confluent_kafka import Message, Producer

from prototide.service.demo_feed import embedded_broker
from prototide.service.errors import PersonMustAct
from prototide.service.settings import Settings, load
from prototide.service.tailing import Kind, Reader, kind_of, told
from prototide.service.wire import Predictions, encode_predictions


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with embedded_broker(["predictions", "dead-letters", "followed", "empty"]) as address:
        yield address


@pytest.fixture
def settings(broker: str) -> Settings:
    return load(None, [f"kafka.bootstrap_servers={broker}"], {})


def send(broker: str, topic: str, *values: bytes, headers: Any = None) -> None:
    producer = Producer({"bootstrap.servers": broker})
    for value in values:
        producer.produce(topic, value, partition=0, headers=headers)
    assert producer.flush(20) == 0


def whole(settings: Settings, topic: str) -> list[Message]:
    reader = Reader(settings, topic, from_beginning=True, until_end=True, stopped=lambda: False)
    try:
        return list(itertools.chain.from_iterable(reader))
    finally:
        reader.close()


def some_predictions(offset: int) -> Predictions:
    return Predictions(
        source=("train", 0, offset),
        step=4,
        labels=["1", 1, None],
        scores=np.array([1.5, 0.5, 0], np.float32),
        prototypes=np.array([2**50, 3, -1]),
        top_k=2,
        top_labels=["1", 1, 1, None, None, None],
        top_probs=np.array([0.75, 0.25, 1, 0, 0, 0], np.float32),
        truth=["1", None, "a"],
        ids=["x", 2, "z"],
        ts=1_700_000_000_123,
    )


def test_each_predicted_row_is_told_and_a_record_that_is_none_costs_only_itself(
    broker: str, settings: Settings
) -> None:
    json_record = encode_predictions(
        Predictions(source=("train", 1, 9), step=5, labels=["a"], scores=np.ones(1), prototypes=np.zeros(1)), "json"
    )
    send(broker, "predictions", encode_predictions(some_predictions(7)), b"\xc1", json_record)
    rows, unreadable = told(whole(settings, "predictions"), Kind.PREDICTIONS)
    shared = {"source": "train/0/7", "step": 4, "ts": 1_700_000_000_123}
    expected = [
        {"row": 0, "id": "x", "label": "1", "score": 1.5, "prototype": 2**50, "truth": "1"}
        | {"top": [["1", 0.75], [1, 0.25]]},
        {"row": 1, "id": 2, "label": 1, "score": 0.5, "prototype": 3, "truth": None, "top": [[1, 1.0]]},
        {"row": 2, "id": "z", "label": None, "score": 0.0, "prototype": -1, "truth": "a", "top": []},
    ]
    assert rows == [
        *(shared | row for row in expected),
        {"source": "train/1/9", "row": 0, "step": 5, "label": "a", "score": 1.0, "prototype": 0},
    ]
    assert len(unreadable) == 1
    assert unreadable[0].startswith("predictions/0/1 is no prediction record: decode")


def test_a_dead_letter_is_told_by_its_last_headers_and_never_by_its_payload(broker: str, settings: Settings) -> None:
    theirs = [("dlq.reason", "forged"), ("trace", None), ("raw", b"\xff")]
    ours = [
        ("dlq.reason", "schema"),
        ("dlq.detail", "missing: indptr"),
        ("dlq.topic", "train"),
        ("dlq.partition", "2"),
        ("dlq.offset", "41"),
        ("dlq.timestamp", "1700000000123"),
        ("dlq.service-version", "0.1.0"),
    ]
    too_large = [("dlq.value-sha256", "ab" * 32), ("dlq.value-bytes", "9000000")]
    send(broker, "dead-letters", b"private", headers=theirs + ours)
    send(broker, "dead-letters", b"", headers=ours + too_large)
    send(broker, "dead-letters", b"no headers at all")
    rows = told(whole(settings, "dead-letters"), Kind.DEAD_LETTERS).rows
    assert rows[0] == {
        "record": "dead-letters/0/0",
        "source": "train/2/41",
        "reason": "schema",
        "detail": "missing: indptr",
        "timestamp": 1_700_000_000_123,
        "bytes": 7,
        "service_version": "0.1.0",
    }
    assert (rows[1]["bytes"], rows[1]["sha256"]) == (9_000_000, "ab" * 32)
    assert (rows[2]["source"], rows[2]["reason"], rows[2]["timestamp"]) == ("?/?/?", None, None)


def wait_for(reader: Iterator[list[Message]], is_done: Callable[[list[Message]], bool]) -> list[Message]:
    found: list[Message] = []
    for messages in itertools.islice(reader, 100):
        found += messages
        if is_done(found):
            return found
    raise AssertionError(f"only {len(found)} records came")


def test_without_from_beginning_only_later_records_are_told(broker: str, settings: Settings) -> None:
    send(broker, "followed", b"early")
    reader = Reader(settings, "followed", from_beginning=False, until_end=False, stopped=lambda: False)
    slices = iter(reader)
    try:
        # The end is looked up by the first polls: send until something arrives.
        late = Producer({"bootstrap.servers": broker})

        def has_late(found: list[Message]) -> bool:
            late.produce("followed", b"late", partition=0)
            late.flush(20)
            return bool(found)

        assert {message.value() for message in wait_for(slices, has_late)} == {b"late"}
    finally:
        reader.close()


def test_an_empty_topic_ends_at_once_when_its_end_is_asked_for(settings: Settings) -> None:
    assert whole(settings, "empty") == []


def test_it_ends_when_asked_to_stop(settings: Settings) -> None:
    asked = iter([False, False, False, True])
    reader = Reader(settings, "empty", from_beginning=True, until_end=False, stopped=lambda: next(asked, True))
    assert all(messages == [] for messages in reader)
    reader.close()


def test_a_missing_topic_is_told_with_those_there_are(settings: Settings) -> None:
    with pytest.raises(PersonMustAct, match=r"no topic gone.*dead-letters.*predictions"):
        Reader(settings, "gone", from_beginning=True, until_end=True, stopped=lambda: False)


def test_the_settings_tell_what_a_topic_holds() -> None:
    settings = load(None, ["topics.predictions=answers"], {})
    assert kind_of("answers", settings) is Kind.PREDICTIONS
    assert kind_of("dead-letters", settings) is Kind.DEAD_LETTERS
    with pytest.raises(PersonMustAct, match="--kind predictions"):
        kind_of("predictions", settings)

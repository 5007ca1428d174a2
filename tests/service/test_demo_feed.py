"""The demo's feed on the embedded broker: bounded, paced, with a broken record now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from prototide.service import demo_feed
from prototide.service.demo_feed import IN_FLIGHT_RECORDS, ROWS_PER_RECORD, Feed, embedded_broker
from prototide.service.demo_stream import DemoStream
from prototide.service.wire import DeadLetterReason, RejectedRecord, decode_batch


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with embedded_broker(["train", "broken", "paced", "bounded"]) as address:
        yield address


def feed_to(broker: str, topic: str, *, rate: float = 0, in_flight: int | None = None) -> Feed:
    producer = Producer({"bootstrap.servers": broker})
    return Feed(producer, topic, DemoStream(seed=1), rate=rate, in_flight=in_flight)


def consume(broker: str, topic: str, records: int) -> list[bytes]:
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "test", "enable.auto.commit": False})
    try:
        partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
        consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
        payloads: list[bytes] = []
        deadline = time.monotonic() + 20
        while len(payloads) < records and time.monotonic() < deadline:
            payloads += [m.value() for m in consumer.consume(records, 0.2) if m.error() is None]
        return payloads
    finally:
        consumer.close()


def wait_for(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not within the deadline"
        time.sleep(0.01)


def test_embedded_broker_has_its_topics_before_anybody_writes_to_them(broker: str) -> None:
    found = Producer({"bootstrap.servers": broker}).list_topics(timeout=10).topics
    assert {"train", "broken", "paced", "bounded"} <= set(found)
    assert len(found["train"].partitions) > 1


def test_what_is_sent_are_batches_of_the_stream(broker: str) -> None:
    feed = feed_to(broker, "train", in_flight=5)
    feed.start()
    payloads = consume(broker, "train", records=5)
    feed.stop()
    batches = [decode_batch(payload) for payload in payloads]
    assert [batch.X.shape[0] for batch in batches] == [ROWS_PER_RECORD] * 5
    assert all(str(label).startswith("topic-") for batch in batches for label in batch.labels)
    expected = {tuple(labels) for labels in _labels_of_first_batches(5)}
    assert {tuple(batch.labels) for batch in batches} == expected


def test_no_more_is_in_flight_than_allowed_until_it_is_consumed(broker: str) -> None:
    feed = feed_to(broker, "bounded", in_flight=3)
    feed.start()
    wait_for(lambda: feed.records == 3)
    assert len(consume(broker, "bounded", records=3)) == 3
    feed.consumed(2)
    wait_for(lambda: feed.records == 5)
    feed.stop()
    assert feed.records == 5


def test_what_may_be_in_flight_fits_the_embedded_broker() -> None:
    stream = DemoStream(seed=0)
    largest = max(len(demo_feed.encode_batch(*stream.batch(ROWS_PER_RECORD))) for _ in range(20))
    assert largest * IN_FLIGHT_RECORDS < 5 * 2**20 / 2


def test_rate_is_not_exceeded(broker: str) -> None:
    feed = feed_to(broker, "paced", rate=20 * ROWS_PER_RECORD)
    started = time.monotonic()
    feed.start()
    wait_for(lambda: feed.records == 11)
    elapsed = time.monotonic() - started
    feed.stop()
    assert elapsed > 0.45


def test_a_record_now_and_then_is_broken(broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_feed, "RECORDS_PER_BROKEN_ONE", 3)
    feed = feed_to(broker, "broken", in_flight=6)
    feed.start()
    payloads = consume(broker, "broken", records=6)
    feed.stop()
    reasons = []
    for payload in payloads:
        try:
            decode_batch(payload)
        except RejectedRecord as rejected:
            reasons.append(rejected.reason)
    assert feed.broken == 2
    assert reasons == [DeadLetterReason.DECODE] * 2


def test_a_record_that_cannot_be_delivered_ends_the_feed_with_its_error() -> None:
    unreachable = Producer({"bootstrap.servers": "127.0.0.1:1", "message.timeout.ms": 50, "log_level": 0})
    feed = Feed(unreachable, "train", DemoStream(seed=1), rate=100 * ROWS_PER_RECORD)
    feed.run()
    with pytest.raises(KafkaException, match="_MSG_TIMED_OUT"):
        feed.stop()


def _labels_of_first_batches(batches: int) -> list[list[str]]:
    stream = DemoStream(seed=1)
    return [stream.batch(ROWS_PER_RECORD)[1] for _ in range(batches)]

"""The demo's feed on the embedded broker: bounded, paced, with a broken record now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from prototide.service import demo_feed
from prototide.service.demo_feed import IN_FLIGHT_RECORDS, ROWS_PER_RECORD, InFlight, embedded_broker, send_stream
from prototide.service.demo_stream import DemoStream
from prototide.service.producing import Sender, new_sender
from prototide.service.settings import load
from prototide.service.wire import DeadLetterReason, RejectedRecord, decode_batch, encode_batch


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with embedded_broker(["train", "broken", "paced", "bounded"]) as address:
        yield address


@contextmanager
def feeding(
    broker: str, topic: str, *, rate: float | None = None, in_flight: InFlight | None = None
) -> Iterator[Sender]:
    """Sends from a thread while the context lasts."""
    stop = threading.Event()
    sender = new_sender(load(None, [f"kafka.bootstrap_servers={broker}"], {}), topic, stop.is_set)
    arguments = (sender, DemoStream(seed=1), rate, stop.is_set, in_flight)
    thread = threading.Thread(target=send_stream, args=arguments)
    thread.start()
    try:
        yield sender
    finally:
        stop.set()
        thread.join()


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
    with feeding(broker, "train", in_flight=InFlight(5)):
        batches = [decode_batch(payload) for payload in consume(broker, "train", records=5)]
    assert [batch.X.shape[0] for batch in batches] == [ROWS_PER_RECORD] * 5
    stream = DemoStream(seed=1)
    expected = {tuple(stream.batch(ROWS_PER_RECORD)[1]) for _ in range(5)}
    assert {tuple(batch.labels) for batch in batches} == expected


def test_no_more_is_in_flight_than_allowed_until_the_service_has_done_with_some(broker: str) -> None:
    in_flight = InFlight(3)
    with feeding(broker, "bounded", in_flight=in_flight) as sender:
        assert len(consume(broker, "bounded", records=3)) == 3
        in_flight.done(2)
        assert len(consume(broker, "bounded", records=5)) == 5
    assert sender.sent.records == 5


def test_what_may_be_in_flight_fits_the_embedded_broker() -> None:
    stream = DemoStream(seed=0)
    largest = max(len(encode_batch(*stream.batch(ROWS_PER_RECORD))) for _ in range(20))
    assert largest * IN_FLIGHT_RECORDS < 5 * 2**20 / 2


def test_rate_is_not_exceeded(broker: str) -> None:
    started = time.monotonic()
    with feeding(broker, "paced", rate=20 * ROWS_PER_RECORD) as sender:
        wait_for(lambda: sender.sent.records >= 11)
        elapsed = time.monotonic() - started
    assert elapsed >= 10 / 20


def test_a_record_now_and_then_is_broken(broker: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_feed, "RECORDS_PER_BROKEN_ONE", 3)
    with feeding(broker, "broken", in_flight=InFlight(6)) as sender:
        payloads = consume(broker, "broken", records=6)
    reasons = []
    for payload in payloads:
        try:
            decode_batch(payload)
        except RejectedRecord as rejected:
            reasons.append(rejected.reason)
    assert reasons == [DeadLetterReason.DECODE] * 2
    assert sender.sent.rows == 4 * ROWS_PER_RECORD

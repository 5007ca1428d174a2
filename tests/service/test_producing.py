"""Sending files: to the embedded broker, and to a fake producer where brokers must misbehave."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from prototide.service.clients import ClientErrors
from prototide.service.demo_feed import embedded_broker
from prototide.service.errors import PersonMustAct, RestartMayHelp
from prototide.service.producing import Feed, Sender, Sent, new_sender, produce_file
from prototide.service.row_encoding import EncodedRows, RowEncoder
from prototide.service.settings import Settings, load
from prototide.service.sources import Columns
from prototide.service.wire import Batch, Limits, decode_batch

TOPICS = ["plain", "shuffled", "limited", "stopped", "broken", "broken-shuffled", "rate"]


@pytest.fixture(scope="module")
def broker() -> Iterator[str]:
    with embedded_broker(TOPICS) as address:
        yield address


@pytest.fixture
def settings(broker: str) -> Settings:
    return load(None, [f"kafka.bootstrap_servers={broker}"], {})


def never() -> bool:
    return False


def told_nothing(_rows: int, _share: float) -> None:
    """Nobody watches."""


def a_file(folder: Path, rows: int) -> Path:
    path = folder / "rows.tsv"
    path.write_text("".join(f"label-{i}\ttext number {i}\n" for i in range(rows)))
    return path


def send(settings: Settings, topic: str, path: Path, *, stopped: Callable[[], bool] = never, **how: Any) -> Sent:
    feed = Feed(path=path, columns=Columns(), **how)
    sender = new_sender(settings, topic, never)
    return produce_file(feed, sender, RowEncoder(1024, Limits()), stopped, told_nothing)


def batches_of(broker: str, topic: str, records: int) -> list[Batch]:
    """The topic's records in the order of their timestamps and offsets."""
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "test"})
    partitions = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, partition, 0) for partition in partitions])
    found: list[Any] = []
    deadline = time.monotonic() + 20
    while len(found) < records and time.monotonic() < deadline:
        found += [message for message in consumer.consume(records, 0.5) if message.error() is None]
    consumer.close()
    assert len(found) == records
    return [decode_batch(message.value()) for message in found]


def labels_of(batches: list[Batch]) -> list[Any]:
    return [label for batch in batches for label in batch.labels]


def test_every_row_of_a_file_arrives_once(broker: str, settings: Settings, tmp_path: Path) -> None:
    sent = send(settings, "plain", a_file(tmp_path, 1000), batch_rows=64)
    assert (sent.rows, sent.rows_delivered, sent.records, sent.records_failed) == (1000, 1000, 16, 0)
    batches = batches_of(broker, "plain", 16)
    assert sorted(labels_of(batches)) == sorted(f"label-{i}" for i in range(1000))
    assert sorted(batch.X.shape[0] for batch in batches) == [40, *[64] * 15]
    assert "1,000 rows in 16 records delivered to plain" in sent.summary("plain")


def test_a_shuffle_is_the_same_for_the_same_seed_and_limited_after_it(
    broker: str, settings: Settings, tmp_path: Path
) -> None:
    path = a_file(tmp_path, 500)
    for _ in range(2):
        send(settings, "shuffled", path, shuffle_seed=7, most_rows=50, batch_rows=50)
    first, second = batches_of(broker, "shuffled", 2)
    expected = [f"label-{i}" for i in range(500)]
    random.Random(7).shuffle(expected)
    assert first.labels == second.labels == expected[:50]


def test_a_limit_takes_the_first_rows_of_the_file(broker: str, settings: Settings, tmp_path: Path) -> None:
    sent = send(settings, "limited", a_file(tmp_path, 500), most_rows=7)
    assert sent.rows == 7
    assert labels_of(batches_of(broker, "limited", 1)) == [f"label-{i}" for i in range(7)]


def test_asked_to_stop_it_ends_with_what_was_sent_delivered(settings: Settings, tmp_path: Path) -> None:
    sent = send(settings, "stopped", a_file(tmp_path, 500), batch_rows=10, stopped=lambda: True)
    assert (sent.rows, sent.rows_delivered) == (10, 10)


def test_a_rate_is_kept(settings: Settings, tmp_path: Path) -> None:
    sent = send(settings, "rate", a_file(tmp_path, 40), batch_rows=10, rows_per_second=100)
    assert 0.4 <= sent.seconds < 5


def test_rows_before_a_bad_line_are_sent_and_counted_in_the_message(
    broker: str, settings: Settings, tmp_path: Path
) -> None:
    path = a_file(tmp_path, 25)
    with path.open("a") as file:
        file.write("no tab\nlabel\ttext\n")
    with pytest.raises(PersonMustAct) as caught:
        send(settings, "broken", path, batch_rows=10)
    assert "rows.tsv, line 26: 1 column, expected the label in column 1" in caught.value.what
    assert "before it 25 rows in 3 records were sent" in caught.value.advice
    assert len(labels_of(batches_of(broker, "broken", 3))) == 25


def test_a_bad_line_in_a_shuffled_file_is_found_before_anything_is_sent(settings: Settings, tmp_path: Path) -> None:
    path = a_file(tmp_path, 25)
    with path.open("a") as file:
        file.write("no tab\n")
    with pytest.raises(PersonMustAct, match="before it 0 rows in 0 records were sent"):
        send(settings, "broken-shuffled", path, shuffle_seed=0)


def test_a_missing_topic_names_the_command_that_makes_topics(settings: Settings) -> None:
    with pytest.raises(PersonMustAct, match=r"no topic gone.*`prototide topics create --set topics.train=gone`"):
        new_sender(settings, "gone", never)


def test_an_unreachable_broker_is_waited_for_and_then_told() -> None:
    settings = load(None, ["kafka.bootstrap_servers=127.0.0.1:1", "kafka.startup_timeout_s=0.5"], {})
    with pytest.raises(RestartMayHelp, match=r"127\.0\.0\.1:1"):
        new_sender(settings, "train", never)


class FakeProducer:
    """Takes `room` records until polled; refuses those for which `refuses` says so."""

    def __init__(self, room: int = 10**6, refuses: Callable[[int], bool] = lambda _: False) -> None:
        self.taken = 0
        self._room = room
        self._refuses = refuses
        self._waiting: list[tuple[int, Any]] = []

    def produce(self, topic: str, value: bytes, on_delivery: Any) -> None:
        if len(self._waiting) == self._room:
            raise BufferError
        self._waiting.append((self.taken, on_delivery))
        self.taken += 1

    def poll(self, timeout: float) -> int:
        return self.flush(timeout) if timeout else 0

    def flush(self, timeout: float) -> int:
        for number, on_delivery in self._waiting:
            on_delivery(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE) if self._refuses(number) else None, None)
        self._waiting.clear()
        return 0


def send_to(producer: FakeProducer, path: Path) -> Sent:
    sender = Sender(producer, "train", ClientErrors())  # type: ignore[arg-type]
    feed = Feed(path=path, columns=Columns(), batch_rows=1)
    return produce_file(feed, sender, RowEncoder(1024, Limits()), never, told_nothing)


def test_a_full_queue_is_waited_for(tmp_path: Path) -> None:
    producer = FakeProducer(room=3)
    assert send_to(producer, a_file(tmp_path, 20)).rows_delivered == 20
    assert producer.taken == 20


def test_refused_records_are_counted_and_the_first_error_told(tmp_path: Path) -> None:
    producer = FakeProducer(refuses=lambda number: number in (3, 7))
    with pytest.raises(PersonMustAct, match=r"2 of 20 records were not delivered.*MSG_SIZE_TOO_LARGE"):
        send_to(producer, a_file(tmp_path, 20))


def test_a_client_that_failed_for_good_ends_the_sending() -> None:
    errors = ClientErrors()
    errors(KafkaError(KafkaError._AUTHENTICATION, fatal=True))
    with pytest.raises(PersonMustAct, match="sasl"):
        Sender(FakeProducer(), "train", errors).send(EncodedRows(b"x", 1))  # type: ignore[arg-type]


def test_progress_tells_rows_and_the_share_done(tmp_path: Path) -> None:
    told: list[tuple[int, float]] = []
    sender = Sender(FakeProducer(), "train", ClientErrors())  # type: ignore[arg-type]
    feed = Feed(path=a_file(tmp_path, 20), columns=Columns(), batch_rows=5, shuffle_seed=1)
    produce_file(feed, sender, RowEncoder(1024, Limits()), never, lambda rows, share: told.append((rows, share)))
    assert told == [(5, 0.25), (10, 0.5), (15, 0.75), (20, 1.0)]

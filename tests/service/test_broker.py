from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest
from confluent_kafka import Message

from prototide.service import broker
from prototide.service.broker import Output, Record, Sink, Source
from prototide.service.clients import ClientErrors, consumer_properties, producer_properties
from prototide.service.demo_feed import embedded_broker
from prototide.service.errors import RestartMayHelp
from prototide.service.settings import Settings, load
from tests.support.kafka import free_port
from tests.support.stream import until


@pytest.fixture
def settings() -> Iterator[Settings]:
    with embedded_broker(["train"]) as brokers:
        yield load(None, [f"kafka.bootstrap_servers={brokers}"], {})


@pytest.fixture
def source(settings: Settings) -> Iterator[Source]:
    made = Source(consumer_properties(settings), "train", ClientErrors())
    yield made
    made.close()


@pytest.fixture
def sink(settings: Settings) -> Iterator[Sink]:
    made = Sink(producer_properties(settings, 10_000, 100_000), ClientErrors(), lambda: False)
    yield made
    made.close()


def output(value: bytes, partition: int = 0) -> Output:
    return Output("train", partition, b"key", value, [("h", "text"), ("none", None)])


def read(source: Source, count: int) -> list[Record]:
    records: list[Record] = []

    def enough() -> bool:
        records.extend(source.consume(100, 0.05))
        return len(records) >= count

    until(enough)
    return records


def test_what_is_delivered_is_there(source: Source, sink: Sink) -> None:
    sink.deliver([output(b"one"), output(b"two", partition=3)])
    assert source.watermarks((0, 3)) == {0: (0, 1), 3: (0, 1)}
    source.assign({0: 0, 3: 0})
    records = sorted(read(source, 2), key=lambda record: record.partition)
    assert [(record.source, record.value, record.key) for record in records] == [
        ("train/0/0", b"one", b"key"),
        ("train/3/0", b"two", b"key"),
    ]
    assert list(records[0].headers) == [("h", b"text"), ("none", None)]
    assert records[0].timestamp_ms > 1e12
    assert source.lag({0: 0, 3: 1}) == {("train", 0): 1, ("train", 3): 0}


def test_reading_begins_at_the_positions(source: Source, sink: Sink) -> None:
    sink.deliver([output(b"%d" % number) for number in range(5)])
    source.assign({0: 3})
    assert [record.offset for record in read(source, 2)] == [3, 4]
    assert source.poll(0.05) is None


def test_a_new_partition_is_read_from_its_beginning(
    source: Source, sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prototide.service.broker.LOOK_INTERVAL_SECONDS", 0.0)
    sink.deliver([output(b"early", partition=2)])
    source.assign({0: 0})
    assert source.keep_up({0: 0}) == [1, 2, 3]  # as if they had just been added
    assert [record.source for record in read(source, 1)] == ["train/2/0"]


def test_brokers_that_are_back_are_noticed(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prototide.service.broker.LOOK_INTERVAL_SECONDS", 0.0)
    errors = ClientErrors()
    source = Source(consumer_properties(settings), "train", errors)
    source.assign(dict.fromkeys(range(4), 0))
    errors.brokers_up = False
    assert source.keep_up({}) == []
    assert source.brokers_up
    source.close()


def test_a_step_that_nobody_acknowledges_is_given_up_when_asked() -> None:
    settings = load(None, [f"kafka.bootstrap_servers=127.0.0.1:{free_port()}"], {})
    sink = Sink(producer_properties(settings, 10_000, 10_000), ClientErrors(), lambda: True)
    with pytest.raises(RestartMayHelp, match="grace"):
        sink.deliver([output(b"lost")])
    sink.close()


def test_a_step_that_times_out_is_worth_a_restart() -> None:
    brokers = f"kafka.bootstrap_servers=127.0.0.1:{free_port()}"
    settings = load(None, [brokers, "kafka.transaction_deadline_s=0.3"], {})
    sink = Sink(producer_properties(settings, 10_000, 10_000), ClientErrors(), lambda: False)
    with pytest.raises(RestartMayHelp, match="train was not delivered"):
        sink.deliver([output(b"lost")])
    sink.close()


def test_headers_that_the_client_cannot_read_are_dropped() -> None:
    class Unreadable:
        def topic(self) -> str:
            return "train"

        def partition(self) -> int:
            return 0

        offset = partition

        def headers(self) -> None:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    assert broker._headers(cast("Message", Unreadable())) == ()


def test_what_was_paused_is_read_after_the_next_assign(source: Source, sink: Sink) -> None:
    sink.deliver([output(b"one")])
    source.assign({0: 0})
    source.pause(0)
    source.assign({0: 0})
    assert [record.value for record in read(source, 1)] == [b"one"]
    assert source.partitions()[0] == 0

"""Sending the rows of a file to a topic: as fast as the brokers take them, or at a given rate."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from confluent_kafka import KafkaError, Message, Producer

from prototide.service.clients import ClientErrors, admin_client, new_client, producer_properties, service_error
from prototide.service.errors import PersonMustAct
from prototide.service.row_encoding import EncodedRows, RowEncoder, batches
from prototide.service.settings import Settings
from prototide.service.sources import Columns, Lines, Row, UnparsableLine, format_of, read_rows
from prototide.service.topics import RECORD_OVERHEAD_BYTES, wait_for_brokers

SLICE_SECONDS = 0.2  # longest wait inside the client: signals are handled between slices


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What to send, and how."""

    path: Path
    columns: Columns
    hashed_columns: int = 2**17
    batch_rows: int = 256
    rows_per_second: float | None = None
    shuffle_seed: int | None = None  # None: in the file's order
    most_rows: int | None = None


@dataclass(slots=True)
class Sent:
    """What has been sent, and what the brokers said."""

    rows: int = 0
    records: int = 0
    rows_delivered: int = 0
    records_failed: int = 0
    first_error: KafkaError | None = None
    seconds: float = 0.0

    def summary(self, topic: str) -> str:
        """One line for a person."""
        speed = self.rows_delivered / self.seconds if self.seconds > 0 else 0.0
        return f"{_counted(self)} delivered to {topic} in {self.seconds:.2f} s ({speed:,.0f} rows/s)"


class Sender:
    """A producer that counts; `send` waits while its queue is full."""

    def __init__(self, producer: Producer, topic: str, errors: ClientErrors) -> None:
        self.sent = Sent()
        self._producer = producer
        self._topic = topic
        self._errors = errors
        self._start = time.monotonic()

    def send(self, record: EncodedRows) -> None:
        """Hands one record over; raises ServiceError for a client that has failed for good."""

        def delivered(error: KafkaError | None, _message: Message) -> None:
            if error is None:
                self.sent.rows_delivered += record.rows
                return
            self.sent.records_failed += 1
            self.sent.first_error = self.sent.first_error or error

        while True:
            self._errors.raise_any()
            try:
                self._producer.produce(self._topic, record.payload, on_delivery=delivered)
                break
            except BufferError:  # the queue is full: back-pressure
                self._producer.poll(SLICE_SECONDS)
        self._producer.poll(0)
        self.sent.rows += record.rows
        self.sent.records += 1

    def wait_for(self, rows_per_second: float, stopped: Callable[[], bool]) -> None:
        """Returns when what was sent is due at that rate."""
        due = self._start + self.sent.rows / rows_per_second
        while (left := due - time.monotonic()) > 0 and not stopped():
            self._producer.poll(min(left, SLICE_SECONDS))

    def finish(self) -> Sent:
        """Returns when the brokers have answered for every record, or their time is up."""
        while self._producer.flush(SLICE_SECONDS) > 0:
            self._errors.raise_any()
        self.sent.seconds = time.monotonic() - self._start
        return self.sent


def produce_file(
    feed: Feed,
    sender: Sender,
    encoder: RowEncoder,
    stopped: Callable[[], bool],
    progress: Callable[[int, float], None],
) -> Sent:
    """Sends the file until its end or `stopped`; tells `progress` the rows sent and the share done.

    Raises PersonMustAct for a line that cannot be parsed, after what stands before it was sent, and ServiceError when
    the brokers refused a record.
    """
    lines = Lines(feed.path)
    failed: UnparsableLine | None = None
    try:
        rows, total_rows = _rows(feed, lines)
        for batch in batches(rows, encoder, feed.batch_rows):
            for record in encoder.encode(batch):
                sender.send(record)
            share = sender.sent.rows / total_rows if total_rows else lines.bytes_read / max(1, lines.size_bytes)
            progress(sender.sent.rows, share)
            if feed.rows_per_second is not None:
                sender.wait_for(feed.rows_per_second, stopped)
            if stopped():
                break
    except UnparsableLine as error:
        failed = error
    finally:
        lines.close()
    sent = sender.finish()
    _raise_refused(sent)
    if failed is not None:
        raise PersonMustAct(
            f"{feed.path}, line {failed.line}: {failed.found}, expected {failed.expected}",
            f"before it {_counted(sent)} were sent; correct the line and send the rest",
        )
    return sent


def _rows(feed: Feed, lines: Lines) -> tuple[Iterable[Row], int | None]:
    """The rows to send, and how many they are where that is known before the file's end."""
    rows: Iterable[Row] = read_rows(lines, format_of(feed.path), feed.columns)
    if feed.shuffle_seed is None:
        return islice(rows, feed.most_rows), feed.most_rows
    shuffled = list(rows)
    random.Random(feed.shuffle_seed).shuffle(shuffled)
    shuffled = shuffled[: feed.most_rows]
    return shuffled, len(shuffled)


def _counted(sent: Sent) -> str:
    records = sent.records - sent.records_failed
    return f"{sent.rows_delivered:,} row{_s(sent.rows_delivered)} in {records:,} record{_s(records)}"


def _s(count: int) -> str:
    return "" if count == 1 else "s"


def _raise_refused(sent: Sent) -> None:
    if sent.first_error is not None:
        doing = f"{sent.records_failed:,} of {sent.records:,} records were not delivered, the first"
        raise service_error(sent.first_error, doing)


def new_sender(settings: Settings, topic: str, stopped: Callable[[], bool]) -> Sender:
    """Connects to the brokers; raises RestartMayHelp when none answers, PersonMustAct when the topic is missing."""
    errors = ClientErrors()
    if topic not in wait_for_brokers(settings, admin_client(settings, errors), errors, stopped).topics:
        raise PersonMustAct(
            f"there is no topic {topic} at {settings.kafka.bootstrap_servers}",
            "`prototide topics create` makes it"
            if topic == settings.topics.train
            else f"`prototide topics create --set topics.train={topic}` makes it",
        )
    record_bytes = max(int(settings.limits.record_bytes) + RECORD_OVERHEAD_BYTES, 1_048_588)
    # Compressed, and holding little memory, unless the settings say otherwise.
    own = {"compression.type": "lz4", "linger.ms": 20, "queue.buffering.max.kbytes": 65_536}
    own |= settings.kafka.properties("producer")
    producer = new_client(Producer, producer_properties(settings, record_bytes, record_bytes) | own, errors)
    return Sender(producer, topic, errors)

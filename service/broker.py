"""Records in, outputs out: the one consumer and the one producer of the service.

The consumer is assigned every partition (never subscribed: no rebalances) and starts where the model says; the offsets
that it commits are for lag tools only. One thread uses them.
"""

from __future__ import annotations

import ctypes
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from prototide.service.clients import REQUEST_SECONDS, ClientErrors, new_client, service_error
from prototide.service.errors import RestartMayHelp

log = logging.getLogger(__name__)

Headers = Sequence[tuple[str, bytes | str | None]]

COMMIT_INTERVAL_SECONDS = 1.0
LOOK_INTERVAL_SECONDS = 10.0  # for new partitions
LOOK_INTERVAL_DOWN_SECONDS = 1.0  # for brokers that come back
LOOK_TIMEOUT_SECONDS = 1.0
CLOSE_TIMEOUT_SECONDS = 2.0
# confluent-kafka (2.16) answers a header name that is not UTF-8 with a list that holds a null pointer, and leaves its
# error behind for whatever runs next; ctypes raises it here. Looked up once: a failed look-up would clear the error.
_raise_left_error = ctypes.pythonapi.PyErr_Occurred
SLICE_SECONDS = 0.2  # longest wait inside the client: signals are handled between slices


class Record(NamedTuple):
    """One record of the train topic."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int  # 0 when the record has none
    key: bytes | None
    value: bytes | None
    headers: Headers

    @property
    def source(self) -> str:
        """``topic/partition/offset``."""
        return f"{self.topic}/{self.partition}/{self.offset}"


class Output(NamedTuple):
    """One record to send."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes
    headers: Headers


class Source:
    """The train topic, every partition of it."""

    def __init__(self, properties: dict[str, object], topic: str, errors: ClientErrors) -> None:
        self.topic = topic
        self._errors = errors
        own = {"on_commit": _log_failed_commit, "enable.partition.eof": False}  # an end is nothing to wake up for
        self._consumer: Consumer = new_client(Consumer, properties | own, errors)
        self._assigned: set[int] = set()
        self._committed: Mapping[int, int] = {}
        self._next_commit = self._next_look = 0.0

    @property
    def brokers_up(self) -> bool:
        """Whether any broker answered lately."""
        return self._errors.brokers_up

    def partitions(self) -> list[int]:
        """The topic's partitions, asked from the brokers."""
        try:
            return sorted(self._consumer.list_topics(self.topic, timeout=REQUEST_SECONDS).topics[self.topic].partitions)
        except KafkaException as failed:
            raise service_error(failed.args[0], f"asking for the partitions of {self.topic}") from None

    def watermarks(self, partitions: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Partition -> (first offset still there, next offset to be written), asked from the brokers."""
        return {partition: self._watermarks(partition) for partition in partitions}

    def assign(self, positions: Mapping[int, int]) -> None:
        """Reads each partition from its position on."""
        places = [self._at(partition, offset) for partition, offset in positions.items()]
        self._consumer.assign(places)
        self._consumer.resume(places)  # a pause outlives an assign
        self._assigned = set(positions)
        self._next_look = time.monotonic() + LOOK_INTERVAL_SECONDS

    def assign_more(self, positions: Mapping[int, int]) -> None:
        """Reads these partitions, too."""
        self._consumer.incremental_assign([self._at(*each) for each in positions.items()])
        self._assigned |= set(positions)

    def pause(self, partition: int) -> None:
        """Reads nothing more of the partition until it is resumed."""
        self._consumer.pause([self._at(partition)])

    def resume(self, partition: int) -> None:
        """Reads the partition on."""
        self._consumer.resume([self._at(partition)])

    def poll(self, timeout: float) -> Record | None:
        """The next record, or None when none came within `timeout` seconds."""
        message = self._consumer.poll(timeout)
        records = self._records([] if message is None else [message])
        return records[0] if records else None

    def consume(self, most: int, timeout: float) -> list[Record]:
        """Up to `most` records within `timeout` seconds."""
        return self._records(self._consumer.consume(most, timeout))

    def lag(self, positions: Mapping[int, int]) -> dict[tuple[str, int], int]:
        """Records between the positions and the ends that the brokers last told."""
        lag = {}
        for partition, offset in positions.items():
            _, high = self._consumer.get_watermark_offsets(self._at(partition), cached=True)
            if high >= 0:
                lag[self.topic, partition] = max(0, high - offset)
        return lag

    def keep_up(self, positions: Mapping[int, int]) -> list[int]:
        """What is due now and then: offsets for lag tools, new partitions (returned, they start at 0), lost brokers."""
        now = time.monotonic()
        if now >= self._next_commit and positions != self._committed:
            self._committed, self._next_commit = dict(positions), now + COMMIT_INTERVAL_SECONDS
            self._consumer.commit(offsets=[self._at(*each) for each in positions.items()], asynchronous=True)
        if now < self._next_look:
            return []
        new = self._look()
        up = self._errors.brokers_up
        self._next_look = time.monotonic() + (LOOK_INTERVAL_SECONDS if up else LOOK_INTERVAL_DOWN_SECONDS)
        if new:
            log.info("new partitions of %s: %s", self.topic, new)
            self.assign_more(dict.fromkeys(new, 0))
        return new

    def close(self) -> None:
        """Leaves; the destructor would not. With brokers away the client would wait a minute for a last commit."""
        closing = threading.Thread(target=self._consumer.close, name="close", daemon=True)
        closing.start()
        closing.join(CLOSE_TIMEOUT_SECONDS)

    def _at(self, partition: int, offset: int = 0) -> TopicPartition:
        return TopicPartition(self.topic, partition, offset)

    def _watermarks(self, partition: int) -> tuple[int, int]:
        try:
            found = self._consumer.get_watermark_offsets(self._at(partition), timeout=REQUEST_SECONDS)
        except KafkaException as failed:
            raise service_error(failed.args[0], f"asking for the offsets of {self.topic}/{partition}") from None
        if found is None:
            raise RestartMayHelp(f"no answer for the offsets of {self.topic}/{partition}", "start again")
        low, high = found
        return low, high

    def _look(self) -> list[int]:
        try:
            found = self._consumer.list_topics(self.topic, timeout=LOOK_TIMEOUT_SECONDS).topics[self.topic]
        except KafkaException:
            return []
        self._errors.brokers_up = True
        return sorted(set(found.partitions) - self._assigned)

    def _records(self, messages: Sequence[Message]) -> list[Record]:
        records = []
        for message in messages:
            error = message.error()
            if error is None:
                records.append(_record(self.topic, message))
            else:
                self._errors(error)
        self._errors.raise_any()
        return records


class Sink:
    """The topics of outputs, at least once: acknowledged by all in-sync replicas, no duplicates by retries."""

    def __init__(self, properties: dict[str, object], errors: ClientErrors, give_up: Callable[[], bool]) -> None:
        """`give_up` says when to wait for acknowledgements no longer."""
        self._errors = errors
        self._give_up = give_up
        self._producer: Producer = new_client(Producer, properties, errors)

    def deliver(self, outputs: Sequence[Output]) -> None:
        """Returns when every output is acknowledged; raises ServiceError when one cannot be."""
        for output in outputs:
            self._produce(output)
        while self._producer.flush(SLICE_SECONDS) > 0:
            self._check()
        self._errors.raise_any()
        self._errors.brokers_up = True

    def close(self) -> None:
        """Forgets what was not acknowledged."""
        self._producer.purge()
        self._producer.flush(SLICE_SECONDS)

    def _produce(self, output: Output) -> None:
        while True:
            try:
                self._producer.produce(
                    output.topic,
                    value=output.value,
                    key=output.key,
                    partition=output.partition,
                    headers=list(output.headers),
                    on_delivery=self._delivered,
                )
                return
            except BufferError:  # the queue is full: back-pressure
                self._producer.poll(SLICE_SECONDS)
                self._check()
            except KafkaException as failed:
                raise service_error(failed.args[0], f"sending a record to {output.topic}") from None

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._errors.delivery_failed(error, str(message.topic()))

    def _check(self) -> None:
        self._errors.raise_any()
        if self._give_up():
            raise RestartMayHelp(
                "asked to stop, but the brokers did not acknowledge the step within shutdown.grace_s",
                "start again: the step is done again",
            )


# The client's annotations allow what a consumed message never is, without a partition or an offset: hence `Any`.
def _record(topic: str, message: Any) -> Record:
    timestamp = message.timestamp()[1]
    return Record(
        topic, message.partition(), message.offset(), timestamp if timestamp > 0 else 0, message.key(),
        message.value(), _headers(message),
    )  # fmt: skip


def _headers(message: Any) -> Headers:
    """The record's headers; none when one has a name that is not UTF-8, which Kafka allows."""
    try:
        headers: Headers | None = message.headers()
        if headers is None:
            return ()
        _raise_left_error()
    except (UnicodeDecodeError, SystemError):
        place = message.topic(), message.partition(), message.offset()
        log.warning("the headers of %s/%s/%s are dropped: a name is not UTF-8", *place)
        return ()
    return headers


def _log_failed_commit(error: KafkaError | None, _partitions: Sequence[TopicPartition]) -> None:
    if error is not None:
        log.warning("offsets for lag tools were not committed: %s (%s)", error.str(), error.name())

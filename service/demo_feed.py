"""Where the demo's records come from: an embedded broker, and a thread that sends the generated stream."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from prototide.service.demo_stream import DemoStream
from prototide.service.wire import encode_batch

log = logging.getLogger(__name__)

ROWS_PER_RECORD = 64  # some 12 KiB
RECORDS_PER_BROKEN_ONE = 400  # a record now and then is cut off: a dead letter, its neighbours are learned
IN_FLIGHT_RECORDS = 64  # under 1 MiB; the embedded broker keeps 5 MiB a partition and drops the oldest without a word
POLL_SECONDS = 0.1


@contextmanager
def embedded_broker(topics: Sequence[str]) -> Iterator[str]:
    """librdkafka's mock cluster with these topics (4 partitions each), while the context lasts; yields its address."""
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 3}, logger=log)
    brokers = cluster.list_topics(timeout=10).brokers
    address = ",".join(f"{broker.host}:{broker.port}" for broker in brokers.values())
    for topic in topics:
        cluster.list_topics(topic, timeout=10)  # the mock cluster makes a topic when its metadata is asked for
    yield address
    cluster.flush(0)  # holds the cluster until here


class Feed:
    """Sends the generated stream to a topic, `rate` rows a second (0: as fast as it is taken), until stopped.

    With `in_flight`, never more than that many records are sent beyond those that `consumed` has been told of.
    """

    def __init__(
        self, producer: Producer, topic: str, stream: DemoStream, *, rate: float, in_flight: int | None = None
    ) -> None:
        self._producer = producer
        self._topic = topic
        self._stream = stream
        self._rate = rate
        self._room = None if in_flight is None else threading.Semaphore(in_flight)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run_and_keep_error, name="demo-feed", daemon=True)
        self._error: BaseException | None = None
        self.records = 0
        self.broken = 0

    def start(self) -> None:
        """Sends from a thread of its own."""
        self._thread.start()

    def consumed(self, records: int) -> None:
        """Says that the service has done with that many records: as many more may be sent."""
        if self._room is not None and records:
            self._room.release(records)

    def stop(self) -> None:
        """Stops sending, waits for the thread and raises what ended it early."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        if self._error is not None:
            raise self._error

    def run(self) -> None:
        """Sends until `stop` or a record that cannot be delivered; returns when what was sent is delivered."""
        started = time.monotonic()
        while not self._stop.is_set() and self._has_room():
            self._send()
            if self._rate:
                ahead = self._stream.rows / self._rate - (time.monotonic() - started)
                self._stop.wait(max(ahead, 0.0))
        self._producer.flush(10)

    def _run_and_keep_error(self) -> None:
        try:
            self.run()
        except BaseException as error:
            self._error = error

    def _has_room(self) -> bool:
        while self._room is not None and not self._room.acquire(timeout=POLL_SECONDS):
            if self._stop.is_set():
                return False
        return True

    def _send(self) -> None:
        X, labels = self._stream.batch(ROWS_PER_RECORD)
        payload = encode_batch(X, labels, ts=time.time_ns() // 1_000_000)
        self.records += 1
        if self.records % RECORDS_PER_BROKEN_ONE == 0:
            self.broken += 1
            payload = payload[: len(payload) // 2]
        while True:
            try:
                self._producer.produce(self._topic, payload, on_delivery=self._delivered)
                break
            except BufferError:
                self._producer.poll(POLL_SECONDS)
        self._producer.poll(0)

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        # The client swallows what a callback raises.
        if error is not None:
            self._error = KafkaException(error)
            self._stop.set()

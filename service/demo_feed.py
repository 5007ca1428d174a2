"""Where the demo's records come from: an embedded broker, and the generated stream sent to a topic."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from confluent_kafka import Producer

from prototide.service.demo_stream import DemoStream
from prototide.service.producing import SLICE_SECONDS, Sender, Sent, new_sender
from prototide.service.row_encoding import EncodedRows
from prototide.service.settings import Settings
from prototide.service.stopping import Stopping
from prototide.service.wire import encode_batch

log = logging.getLogger(__name__)

ROWS_PER_RECORD = 64  # some 14 kB
RECORDS_PER_BROKEN_ONE = 400  # a record now and then is cut off: a dead letter, its neighbours are learned
IN_FLIGHT_RECORDS = 64  # under 1 MiB; the embedded broker keeps 5 MiB a partition and drops the oldest without a word


TOPICS = ("train", "predictions", "dead-letters")  # the settings' defaults


@contextmanager
def embedded_broker(topics: Sequence[str] = TOPICS) -> Iterator[str]:
    """librdkafka's mock cluster with these topics (4 partitions each), while the context lasts; yields its address."""
    cluster = Producer({"test.mock.num.brokers": 1, "log_level": 3}, logger=log)
    brokers = cluster.list_topics(timeout=10).brokers
    address = ",".join(f"{broker.host}:{broker.port}" for broker in brokers.values())
    for topic in topics:
        cluster.list_topics(topic, timeout=10)  # the mock cluster makes a topic when its metadata is asked for
    yield address
    cluster.flush(0)  # the cluster lives as long as this client


class InFlight:
    """How many records may still be sent before the service has done with earlier ones."""

    def __init__(self, records: int = IN_FLIGHT_RECORDS) -> None:
        self._room = threading.Semaphore(records)

    def take(self, stopped: Callable[[], bool]) -> bool:
        """Waits for room for one record; False when asked to stop meanwhile."""
        while not self._room.acquire(timeout=SLICE_SECONDS):
            if stopped():
                return False
        return True

    def done(self, records: int) -> None:
        """The service has done with that many."""
        if records:
            self._room.release(records)


@contextmanager
def sending(
    settings: Settings, seed: int, rows_per_second: float | None, in_flight: InFlight, stopping: Stopping
) -> Iterator[None]:
    """Sends the stream from a thread while the context lasts; when stream or service ends, so does the other."""

    def send() -> Sent:
        sender = new_sender(settings, settings.topics.train, stopping.is_requested)
        return send_stream(sender, DemoStream(seed), rows_per_second, stopping.is_requested, in_flight)

    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="demo-feed") as pool:
        sent = pool.submit(send)
        sent.add_done_callback(lambda _: stopping.request())
        try:
            yield
        finally:
            stopping.request()
    sent.result()


def send_stream(
    sender: Sender,
    stream: DemoStream,
    rows_per_second: float | None,
    stopped: Callable[[], bool],
    in_flight: InFlight | None = None,
) -> Sent:
    """Sends the generated stream, as fast as it is taken or at a rate, until `stopped`; returns what was delivered.

    With `in_flight`, no more than that is ahead of the service.
    """
    due = time.monotonic()
    while not stopped() and (in_flight is None or in_flight.take(stopped)):
        sender.send(_next_record(stream, broken=(sender.sent.records + 1) % RECORDS_PER_BROKEN_ONE == 0))
        if rows_per_second is not None:
            # Time lost waiting for room is not caught up: the service would only fall behind again.
            due = max(due + ROWS_PER_RECORD / rows_per_second, time.monotonic() - SLICE_SECONDS)
            while (left := due - time.monotonic()) > 0 and not stopped():
                time.sleep(min(left, SLICE_SECONDS))
    return sender.finish()


def _next_record(stream: DemoStream, *, broken: bool) -> EncodedRows:
    exchanges = stream.exchanges
    X, labels = stream.batch(ROWS_PER_RECORD)
    if stream.exchanges > exchanges:
        log.info("the stream: a quarter of its classes exchange their words")
    payload = encode_batch(X, labels, ts=time.time_ns() // 1_000_000)
    return EncodedRows(payload[: len(payload) // 2], 0) if broken else EncodedRows(payload, ROWS_PER_RECORD)

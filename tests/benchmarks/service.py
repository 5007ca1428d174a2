"""Speed of the service on a real Kafka, beside the learner alone and a loop that does nothing, in the same run.

    python -m tests.benchmarks.service --parts rows,latency,backlog,restart

rows       records of 256 rows: rows/s of the service over those of `learn`; then how fast the same steps are replayed
latency    1,000 single-row records/s, exactly once: from the producer to a `read_committed` consumer
backlog    single-row records that wait, 150 classes, lambda_penalty 0
restart    15,000 prototypes: from the start of the process to its first commit; what a checkpoint costs a step
"""

from __future__ import annotations

import multiprocessing
import signal
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, Producer, TopicPartition

from prototide.core import FastKMeansClassifier
from prototide.service.journal import Step, decode
from prototide.service.wire import encode_batch
from tests.benchmarks import report
from tests.benchmarks.workload import make
from tests.support.kafka import running_broker
from tests.support.service import Service, consume_all
from tests.support.stream import until

RECORD_ROWS, ROWS = 256, 120_000
LATENCY_SECONDS, WARM_SECONDS, RATE = 20.0, 5.0, 1000
BACKLOG_RECORDS = 200_000
PROTOTYPES = 15_000

Measured = tuple[str, float, str]  # what, how much, the target


def main() -> None:
    """Runs the parts and prints the table."""
    options = report.parser(__doc__)
    parts: dict[str, Callable[[str, Path], list[Measured]]] = {
        "rows": rows_per_second,
        "latency": latency,
        "backlog": backlog,
        "restart": restart,
    }
    options.add_argument("--parts", type=report.names(parts), default=list(parts))
    chosen = options.parse_args()
    with running_broker() as broker:
        for part in chosen.parts:
            with tempfile.TemporaryDirectory() as folder:
                for what, value, target in parts[part](broker.bootstrap_servers, Path(folder)):
                    print(f"{what:<72} {value:14,.3f}   {target}", flush=True)


@contextmanager
def service_on(kafka: str, folder: Path, *overrides: str) -> Iterator[Service]:
    """A service on topics of its own, not started."""
    unique = uuid.uuid4().hex[:8]
    with Service(kafka, folder, lambda name: f"{name}-{unique}", *overrides) as service:
        yield service.create_topics()


def send(service: Service, values: Sequence[bytes]) -> None:
    """To both partitions, in turn."""
    properties = {"bootstrap.servers": service.settings.kafka.bootstrap_servers, "linger.ms": 20}
    producer = Producer(properties | {"queue.buffering.max.messages": 1_000_000})
    for number, value in enumerate(values):
        while True:
            try:
                producer.produce(service.settings.topics.train, value, partition=number % 2)
                break
            except BufferError:
                producer.poll(0.1)
    assert producer.flush(120) == 0


def steps_of(service: Service) -> list[Step]:
    """The journal's steps."""
    entries = [decode(message.value()) for message in consume_all(service.settings, service.settings.topics.journal, 1)]
    return [entry for entry in entries if isinstance(entry, Step)]


def rate_of(steps: Sequence[Step]) -> float:
    """Records/s between the first and the last step, by the journal's clock."""
    records = sum(each.records for step in steps[1:] for each in step.ranges)
    return records / ((steps[-1].time_ms - steps[0].time_ms) / 1000)


def work_off(service: Service, records: int) -> None:
    """Returns when so many records are done. To look more often would slow down what is measured."""
    until(lambda: service.metric("prototide_records_total") >= records, 600, every=0.5)


# --- rows ---


def rows_per_second(kafka: str, folder: Path) -> list[Measured]:
    """Service and learner on the same rows, in the same steps; then the replay of these steps."""
    work = make(ROWS, classes=500, features=100_000)
    values = [
        encode_batch(work.X[first : first + RECORD_ROWS], work.y[first : first + RECORD_ROWS])
        for first in range(0, work.y.size - RECORD_ROWS, RECORD_ROWS)
    ]
    with service_on(kafka, folder, "checkpoint.interval_s=1000") as service:
        send(service, values)
        service.start_ready()
        work_off(service, len(values))
        steps = steps_of(service)
        live = rate_of(steps) * RECORD_ROWS
        alone = _learner_alone(work, steps)
        service.kill()
        started = time.perf_counter()
        service.start_ready()
        with_replay = time.perf_counter() - started
        replayed = service.metric("prototide_replayed_steps_total")
        service.terminate()
        started = time.perf_counter()
        service.start_ready()
        replay = with_replay - (time.perf_counter() - started)
        assert replayed == len(steps)
    rows = len(values) * RECORD_ROWS
    return [
        ("service, rows/s, records of 256 rows", live, ""),
        ("learner alone, rows/s, same rows and steps", alone, ""),
        ("service over learner", live / alone, ">= 0.85"),
        ("replay speed over live speed, back-log of 256-row records", rows / replay / live, ">= 2"),
    ]


def _learner_alone(work: Any, steps: Sequence[Step]) -> float:
    model = FastKMeansClassifier()
    row, seconds = 0, 0.0
    for number, step in enumerate(steps):
        rows = slice(row, row + RECORD_ROWS * sum(each.records for each in step.ranges))
        row = rows.stop
        X, y = work.X[rows], work.y[rows].tolist()
        started = time.perf_counter()
        model.learn(X, y, top_k=3)
        if number:
            seconds += time.perf_counter() - started
    first = RECORD_ROWS * sum(each.records for each in steps[0].ranges)
    return (row - first) / seconds


# --- latency ---


def latency(kafka: str, folder: Path) -> list[Measured]:
    """The service, then the loop that does nothing, under the same records."""
    _loop_latencies(kafka, folder)  # warms the broker
    with service_on(kafka, folder, "checkpoint.interval_s=1000") as service:
        service.start_ready()
        ours = _latencies(service)
        seconds = sum(each.time_ms for each in steps_of(service)[-1:]) - steps_of(service)[0].time_ms
        service.kill()
        started = time.perf_counter()
        service.start_ready()
        with_replay = time.perf_counter() - started
        service.terminate()
        started = time.perf_counter()
        service.start_ready()
        replay = with_replay - (time.perf_counter() - started)
        service.terminate()
    theirs = _loop_latencies(kafka, folder)
    found: list[Measured] = []
    for name, percent, target in (("p50", 50, "<= 1.5"), ("p99", 99, "<= 2")):
        one, other = float(np.percentile(ours, percent)), float(np.percentile(theirs, percent))
        found += [
            (f"1,000 single-row records/s, end to end {name}, ms", 1000 * one, ""),
            (f"the same of a loop that does nothing, {name}, ms", 1000 * other, ""),
            (f"{name} over {name}", one / other, target),
        ]
    return [*found, ("replay speed over live speed, 1,000 single-row records/s", seconds / 1000 / replay, ">= 2")]


def _loop_latencies(kafka: str, folder: Path) -> Any:
    with service_on(kafka, folder) as service:
        context = multiprocessing.get_context("spawn")
        topics = service.settings.topics
        loop = context.Process(target=do_nothing, args=(kafka, topics.train, topics.predictions), daemon=True)
        loop.start()
        found = _latencies(service)
        loop.kill()
    return found


def _latencies(service: Service) -> Any:
    """Seconds from `produce` to a read_committed consumer, of each record after the warm-up."""
    count = int(RATE * (LATENCY_SECONDS + WARM_SECONDS))
    topics, kafka = service.settings.topics, service.settings.kafka.bootstrap_servers
    feeding = multiprocessing.get_context("spawn").Process(target=feed, args=(kafka, topics.train, count), daemon=True)
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "latency", "fetch.wait.max.ms": 2})
    consumer.assign([TopicPartition(topics.predictions, each, OFFSET_BEGINNING) for each in range(2)])
    arrived: list[tuple[int, bytes]] = []
    feeding.start()
    ends = time.monotonic() + 2 * (LATENCY_SECONDS + WARM_SECONDS) + 10
    while len(arrived) < count and time.monotonic() < ends:
        messages = consumer.consume(500, 0.002)
        now = time.time_ns()
        arrived += [(now, message.value() or b"") for message in messages]
    feeding.join()
    consumer.close()
    sent = np.array([msgpack.unpackb(value)["ids"][0] for _, value in arrived])
    assert len(sent) == count, f"{len(sent)} of {count} records came back"
    sending = (sent.max() - sent.min()) / 1e9
    assert sending < 1.05 * count / RATE, f"sending took {sending:.1f} s: this machine is too busy for {RATE} records/s"
    seconds = (np.array([now for now, _ in arrived]) - sent) / 1e9
    return seconds[sent >= sent.min() + WARM_SECONDS * 1e9]


def feed(kafka: str, train: str, count: int) -> None:
    """Single-row records at `RATE`, whose ids say when they were sent; a process of its own."""
    work = make(count, classes=150, features=20_000)
    values = [encode_batch(work.X[number], [int(work.y[number])], ids=[1 << 62]) for number in range(count)]
    place = (1 << 62).to_bytes(8, "big")  # of the id: ready-made records, so that the sender keeps the rate
    producer = Producer({"bootstrap.servers": kafka, "linger.ms": 0})
    producer.list_topics(train, timeout=10)
    started = time.monotonic()
    for number, value in enumerate(values):
        while (early := started + number / RATE - time.monotonic()) > 0:
            time.sleep(early)
        producer.produce(train, value.replace(place, time.time_ns().to_bytes(8, "big"), 1), partition=number % 2)
        producer.poll(0)
    producer.flush(10)


def do_nothing(kafka: str, train: str, predictions: str) -> None:
    """Consume, produce the same, commit: the least that exactly once costs."""
    consumer = Consumer(
        {"bootstrap.servers": kafka, "group.id": "nothing", "fetch.wait.max.ms": 5, "enable.auto.commit": False}
    )
    consumer.assign([TopicPartition(train, each, OFFSET_END) for each in range(2)])
    producer = Producer(
        {"bootstrap.servers": kafka, "transactional.id": f"nothing-{train}", "retry.backoff.ms": 2, "linger.ms": 5}
    )
    producer.init_transactions(30)
    while True:
        messages = [message for message in consumer.consume(1000, 0.005) if message.error() is None]
        if not messages:
            continue
        producer.begin_transaction()
        for message in messages:
            producer.produce(predictions, message.value(), partition=message.partition() or 0)
        producer.commit_transaction(30)


# --- backlog ---


def backlog(kafka: str, folder: Path) -> list[Measured]:
    """Single-row records that wait."""
    work = make(20_000, classes=150, features=20_000)
    values = [encode_batch(work.X[number], [int(work.y[number])]) for number in range(work.y.size)]
    with service_on(kafka, folder, "core.lambda_penalty=0", "checkpoint.interval_s=1000") as service:
        send(service, values * (BACKLOG_RECORDS // len(values)))
        service.start_ready()
        work_off(service, BACKLOG_RECORDS)
        rate = rate_of(steps_of(service))
        service.terminate()
    return [("back-log of single-row records, 150 classes, lambda 0, records/s", rate, ">= 30,000")]


# --- restart ---


def restart(kafka: str, folder: Path) -> list[Measured]:
    """A model of 15,000 prototypes: how long until its first commit; how long a checkpoint holds a step up."""
    work = make(2 * PROTOTYPES, classes=PROTOTYPES * 7 // 6, modes=1)  # not every class is drawn
    rows = np.concatenate([np.unique(work.y, return_index=True)[1], np.arange(work.y.size)])
    values = [encode_batch(work.X[part], work.y[part]) for part in np.array_split(rows, len(rows) // 500)]
    one = encode_batch(work.X[:64], work.y[:64])
    with service_on(kafka, folder, "core.k_init=1", "checkpoint.interval_s=1000") as service:
        send(service, values)
        service.start_ready()
        work_off(service, len(values))
        prototypes = service.metric("prototide_centroids")
        assert service.terminate() == 0
        service.start_ready().terminate()  # the disk's cache is as warm as after a crash
        number = len(steps_of(service))
        send(service, [one])
        watching = _Watch(service)
        started = time.perf_counter()
        service.start()
        seconds = watching.seconds_until_a_step(started)
        service.terminate()
        assert len(steps_of(service)) == number + 1
        calm = _slowest_step(service, one, "checkpoint.interval_s=1000")
        busy = _slowest_step(service, one, "checkpoint.interval_s=2")
    return [
        ("prototypes", prototypes, ""),
        ("from the start of the process to its first commit, s", seconds, "<= 3"),
        ("slowest step without checkpoints, ms", 1000 * calm, ""),
        ("slowest step with a checkpoint every 2 s, ms", 1000 * busy, f"<= {1000 * calm + 50:.0f}"),
    ]


class _Watch:
    """A read_committed consumer at the journal's end."""

    def __init__(self, service: Service) -> None:
        self._consumer = Consumer(
            {"bootstrap.servers": service.settings.kafka.bootstrap_servers, "group.id": "watch", "fetch.wait.max.ms": 5}
        )
        at = TopicPartition(service.settings.topics.journal, 0)
        at.offset = self._consumer.get_watermark_offsets(at, timeout=10)[1]
        self._consumer.assign([at])

    def seconds_until_a_step(self, started: float) -> float:
        """Since `started`."""
        while True:
            message = self._consumer.poll(0.01)
            if message is not None and message.error() is None and isinstance(decode(message.value()), Step):
                self._consumer.close()
                return time.perf_counter() - started


def _slowest_step(service: Service, value: bytes, *overrides: str) -> float:
    """Of steps of 64 rows, 20 a second, for some 15 seconds: from one journal record to the next, less the pause."""
    service.start_ready(*overrides)
    before = len(steps_of(service))
    for _ in range(300):
        send_one = time.monotonic() + 0.05
        send(service, [value])
        time.sleep(max(0.0, send_one - time.monotonic()))
    until(lambda: service.metric("prototide_consumer_lag_records") == 0)
    service.send_signal(signal.SIGTERM)
    service.wait()
    times = np.array([each.time_ms for each in steps_of(service)[before + 20 :]])
    return float(np.diff(times).max() - np.median(np.diff(times))) / 1000


if __name__ == "__main__":
    main()

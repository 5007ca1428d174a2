"""The service as its users run it: a process, its settings, its metrics, its end."""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, Message, Producer, TopicPartition
from prometheus_client.parser import text_string_to_metric_families
from scipy import sparse

from prototide.service.settings import Settings, load
from prototide.service.topics import create_topics, wanted_topics
from prototide.service.wire import encode_batch
from tests.support.kafka import free_port
from tests.support.stream import until

READY_SECONDS = 180.0  # the learner may compile first


class Service:
    """Settings of one service on topics of its own, and its present process."""

    def __init__(self, kafka: str, folder: Path, name: Any, *overrides: str, partitions: int = 2) -> None:
        self.port = free_port()
        self.folder = folder
        self.log = folder / "service.log"
        topics = ("train", "predictions", "dead_letters")
        self.overrides = [
            f"kafka.bootstrap_servers={kafka}",
            f"kafka.group_id={name('group')}",
            *(f"topics.{topic}={name(topic)}" for topic in topics),
            f"checkpoint.uri={folder / 'checkpoints'}",
            "http.host=127.0.0.1",
            f"http.port={self.port}",
            *overrides,
        ]
        self.partitions = partitions
        self.environment: dict[str, str] = {}
        self.secure_overrides: list[str] = []
        self.group = self.settings.kafka.group_id
        self.module = "prototide.service"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> Settings:
        return load(None, self.overrides, {})

    def create_topics(self) -> Self:
        create_topics(self.settings, wanted_topics(self.settings, self.partitions, 1))
        return self

    def create_topics_but(self, name: str) -> None:
        specs = wanted_topics(self.settings, self.partitions, 1)
        create_topics(self.settings, [spec for spec in specs if spec.name != name])

    def start(self, *more: str, options: Sequence[str] = (), failpoints: str = "") -> Self:
        flags = [part for override in (*self.overrides, *more) for part in ("--set", override)]
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PROTOTIDE_")}
        environment |= {"PROTOTIDE_FAILPOINTS": failpoints, **self.environment}
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", self.module, "run", *flags, *options]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        return self

    def start_ready(self, *more: str, options: Sequence[str] = ()) -> Self:
        self.start(*more, options=options)
        until(self.is_ready, READY_SECONDS)
        return self

    def is_ready(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.logged()
        return self.status("readyz") == 200

    def status(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as refused:
            return refused.code
        except OSError:
            return 0

    def metric(self, name: str, **labels: str) -> float:
        """The sum of the series with this name and these labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, seconds: float = 60.0) -> int:
        """The exit code."""
        assert self._process is not None
        code = self._process.wait(seconds)
        self._process = None
        return code

    def terminate(self) -> int:
        self.send_signal(signal.SIGTERM)
        return self.wait()

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)
        self.wait()

    def another(self, *overrides: str) -> Service:
        """The same service as a second process, with an HTTP port of its own; the topics are there."""
        twin = copy.copy(self)
        twin.port, twin.log, twin._process = free_port(), self.folder / "another.log", None
        twin.overrides = [*self.overrides, f"http.port={twin.port}", *overrides]
        return twin

    def committed_offsets(self) -> dict[int, int]:
        """What the service tells lag tools: partition -> offset."""
        consumer = Consumer({"bootstrap.servers": self.settings.kafka.bootstrap_servers, "group.id": self.group})
        try:
            asked = [TopicPartition(self.settings.topics.train, each) for each in range(self.partitions)]
            return {each.partition: each.offset for each in consumer.committed(asked, timeout=30)}
        finally:
            consumer.close()

    def last_line(self) -> str:
        return self.logged().rstrip().splitlines()[-1]

    def logged(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._process is not None:
            self.kill()
        if error is not None:
            print(self.logged())


def produce(settings: Settings, values: list[bytes], partitions: int = 2) -> None:
    """Sends values to the train topic, round robin."""
    producer = Producer({"bootstrap.servers": settings.kafka.bootstrap_servers})
    for number, value in enumerate(values):
        producer.produce(settings.topics.train, value, partition=number % partitions)
    assert producer.flush(30) == 0


def consume_all(settings: Settings, topic: str, count: int) -> list[Message]:
    """Every record of a topic, at least `count` of them."""
    properties = {
        "bootstrap.servers": settings.kafka.bootstrap_servers,
        "group.id": "unused",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    }
    consumer = Consumer(properties)
    messages: list[Message] = []
    try:
        partitions = set(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
        consumer.assign([TopicPartition(topic, partition, OFFSET_BEGINNING) for partition in partitions])
        at_end: set[int] = set()

        def done() -> bool:
            for message in consumer.consume(1000, 0.1):
                if message.error() is None:
                    messages.append(message)
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    at_end.add(message.partition())
            return len(messages) >= count and at_end == partitions

        with contextlib.suppress(AssertionError):
            until(done, 30)
    finally:
        consumer.close()
    assert len(messages) >= count, f"{len(messages)} of {count} records in {topic}"
    return messages


def records(count: int, rows: int = 20, seed: int = 0, classes: int = 6, columns: int = 60) -> list[bytes]:
    """Train records of an easy problem: each class has columns of its own, and some noise."""
    random = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        label = random.integers(classes, size=rows)
        own = label[:, None] * (columns // classes) + random.integers(columns // classes, size=(rows, 3))
        column = np.concatenate([own, random.integers(columns, size=(rows, 3))], axis=1)
        X = sparse.coo_matrix((np.ones(column.size), (np.repeat(np.arange(rows), 6), column.ravel())), (rows, columns))
        made.append(encode_batch(X.tocsr().astype(np.float32), label.tolist(), ids=list(range(rows))))
    return made

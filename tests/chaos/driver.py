"""A service that is killed, paused and started again while records keep coming; at the end everything is compared."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition

from prototide.service import failpoints
from tests.chaos import reference
from tests.support.service import Service, consume_all, records
from tests.support.stream import until

PARTITIONS = 3
DEADLINE_SECONDS = 300.0
LEAVES_STEPS = "published:40"  # behind the newest checkpoint, for the replay's failpoints
# Every failpoint, in an order in which each can be reached: the first ones need a model that has not begun, the
# replay's need steps behind the newest checkpoint.
ONCE = (
    "journal-sent:1",
    "committing:1",
    "genesis:1",
    "assigned:1",
    "gathered:3",
    "learned:2",
    "transaction-begun:3",
    "outputs-sent:2",
    "journal-sent:4",
    "committing:3",
    "committed:5",
    LEAVES_STEPS,
    "replayed-step:3",
    "replayed:1",
    "fenced:1",
    "snapshot:1",
    "checkpoint-half:1",
    "checkpoint-written:1",
    "checkpoint-renamed:1",
    "checkpoint-read:1",
)
QUIET = "heartbeat:1"  # reached only while no record comes
ASKED = "draining:1"  # reached only when asked to stop


class Chaos:
    """One group of topics, its feeder, a consumer that reads all along, and whichever service runs now."""

    def __init__(self, kafka: str, folder: Path, name: Callable[[str], str], *overrides: str, seed: int = 0) -> None:
        self.random = random.Random(seed)
        self.service = Service(
            kafka,
            folder,
            name,
            "checkpoint.interval_s=0.7",
            "batch.max_rows=64",
            "instance.takeover_silence_s=7",
            *overrides,
            partitions=PARTITIONS,
        ).create_topics()
        self.settings = self.service.settings
        self.kills = 0
        self.killed_at: list[str] = []
        self._feeder = Feeder(self.settings, seed)
        self._all_along = AllAlong(self.settings)
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.service)
        self._stack.enter_context(self._all_along)
        self._stack.enter_context(self._feeder)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def kill_at(self, failpoint: str) -> None:
        """The service runs until it comes to the place."""
        if failpoint == QUIET:
            self._feeder.pause()
        rare_checkpoints = ["checkpoint.interval_s=1000"] if failpoint == LEAVES_STEPS else []
        self.service.start(*rare_checkpoints, failpoints=failpoint)
        if failpoint == ASKED:
            until(self.service.is_ready, DEADLINE_SECONDS)
            self.service.send_signal(signal.SIGTERM)
        code = self.service.wait(DEADLINE_SECONDS)
        assert code == -signal.SIGKILL, f"{failpoint} was not reached, exit {code}: {self.service.logged()[-2000:]}"
        self._feeder.resume()
        self.kills += 1
        self.killed_at.append(failpoint.partition(":")[0])

    def kill_soon(self) -> None:
        """The service runs for a random time, longer than its start or not."""
        self.service.start()
        if self.random.random() < 0.7:
            until(self.service.is_ready, DEADLINE_SECONDS)
        time.sleep(self.random.uniform(0, 1.5))  # not a wait for anything: the instant of the crash
        self.service.kill()
        self.kills += 1

    def pause_and_take_over(self, other: Service) -> None:
        """The owner is paused, `other` takes over, the owner wakes up, is fenced and writes nothing."""
        zombie = self.service.start_ready()
        zombie.send_signal(signal.SIGSTOP)
        other.start_ready()
        zombie.send_signal(signal.SIGCONT)
        code = zombie.wait(DEADLINE_SECONDS)
        assert code == 75, f"exit {code}: {zombie.logged()[-2000:]}"
        other.kill()
        self.kills += 1

    def settle_and_check(self) -> None:
        """No more records; the service works off what there is and stops in good order; everything is compared."""
        self._feeder.stop()
        self.service.start_ready()
        ends = self._feeder.ends()
        until(lambda: self._is_through(ends), DEADLINE_SECONDS)
        assert self.service.terminate() == 0, self.service.logged()[-2000:]
        expected = reference.run_over_the_journal(self.settings)
        all_along = self._all_along.finish(len(expected.predictions), len(expected.dead_letters))
        reference.check_outputs(expected, *all_along)
        topics = (self.settings.topics.predictions, self.settings.topics.dead_letters)
        at_the_end = [consume_all(self.settings, topic, 0) for topic in topics]
        reference.check_outputs(expected, *at_the_end)
        assert expected.positions == ends, f"the journal ends at {expected.positions}, the records at {ends}"
        reference.check_model(expected, self.service.folder / "checkpoints")

    def _is_through(self, ends: dict[int, int]) -> bool:
        return self.service.committed_offsets() == ends


class Feeder:
    """A thread that sends records, good and bad, of several widths, at some 200 a second."""

    def __init__(self, settings: Any, seed: int) -> None:
        self._topic = settings.topics.train
        self._servers = settings.kafka.bootstrap_servers
        self._producer = Producer({"bootstrap.servers": self._servers})
        self._random = random.Random(seed)
        self._values = [
            *records(150, rows=4, seed=seed, columns=60),
            *records(150, rows=2, seed=seed + 1, columns=90, classes=9),
            *(b"\xc1 broken", b""),
        ]
        self._going, self._stopped = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._going.set()
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self.stop()

    def pause(self) -> None:
        self._going.clear()

    def resume(self) -> None:
        self._going.set()

    def stop(self) -> None:
        self._stopped.set()
        self._going.set()
        self._thread.join()
        assert self._producer.flush(60) == 0

    def ends(self) -> dict[int, int]:
        """Partition -> next offset to be written."""
        consumer = Consumer({"bootstrap.servers": self._servers, "group.id": "unused"})
        try:
            return {
                partition: consumer.get_watermark_offsets(TopicPartition(self._topic, partition), timeout=30)[1]
                for partition in range(PARTITIONS)
            }
        finally:
            consumer.close()

    def _run(self) -> None:
        while not self._stopped.wait(0.02):
            self._going.wait()
            for value in self._random.choices(self._values, k=4):
                partition = self._random.choices(range(PARTITIONS), (5, 3, 1))[0]
                with contextlib.suppress(BufferError):
                    self._producer.produce(self._topic, value, partition=partition, key=value[:4])
            self._producer.poll(0)


class AllAlong:
    """A `read_committed` consumer of both outputs that runs from the beginning."""

    def __init__(self, settings: Any) -> None:
        self._topics = (settings.topics.predictions, settings.topics.dead_letters)
        self._consumer = Consumer(
            {
                "bootstrap.servers": settings.kafka.bootstrap_servers,
                "group.id": "all-along",
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )
        self._read: dict[str, list[Message]] = {topic: [] for topic in self._topics}
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        partitions = [
            TopicPartition(topic, each, OFFSET_BEGINNING) for topic in self._topics for each in range(PARTITIONS)
        ]
        self._consumer.assign(partitions)
        self._thread.start()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stopped.set()
        self._thread.join()
        self._consumer.close()

    def finish(self, predictions: int, dead_letters: int) -> tuple[list[Message], list[Message]]:
        """What it has read when nothing more comes; so many are expected at least."""
        first, second = (self._read[topic] for topic in self._topics)
        with contextlib.suppress(AssertionError):
            until(lambda: len(first) >= predictions and len(second) >= dead_letters, 30)
        return list(first), list(second)

    def _run(self) -> None:
        while not self._stopped.is_set():
            for message in self._consumer.consume(500, 0.2):
                if message.error() is None:
                    self._read[message.topic() or ""].append(message)


def every_failpoint() -> Iterator[str]:
    """Each once, in an order in which it can be reached."""
    names = {each.partition(":")[0] for each in (*ONCE, QUIET, ASKED)}
    assert names == set(failpoints.NAMES), "a failpoint is missing here"
    yield from ONCE
    yield QUIET
    yield ASKED

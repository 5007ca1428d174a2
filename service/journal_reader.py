"""Reading the journal topic: to its committed end, or watching whether somebody still writes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import cast

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import OffsetSpec

from prototide.service import journal
from prototide.service.broker import SLICE_SECONDS
from prototide.service.clients import (
    REQUEST_SECONDS,
    ClientErrors,
    admin_client,
    consumer_properties,
    new_client,
    service_error,
)
from prototide.service.errors import NEW_MODEL, PersonMustAct, RestartMayHelp
from prototide.service.journal import Entry, UndecodableJournalError
from prototide.service.settings import Settings

MOST_MESSAGES = 1000  # read at once
SETTLE_SECONDS = 5.0  # how long a foreign transaction may still hang
LAST_RECORDS = 100  # offsets looked at for the last record; aborted and control records take offsets, too

_EARLIEST, _LATEST = OffsetSpec.earliest(), OffsetSpec.latest()  # type: ignore[no-untyped-call]


@dataclass(frozen=True, slots=True)
class Found:
    """One journal record; `why` instead of an entry when it does not decode."""

    offset: int
    entry: Entry | None
    why: str = ""


class JournalReader:
    """A consumer of the journal's one partition, committed records only."""

    def __init__(self, settings: Settings, errors: ClientErrors, give_up: Callable[[], bool]) -> None:
        """`give_up` says when to wait for brokers no longer."""
        self.topic = settings.topics.journal
        self._errors = errors
        self._give_up = give_up
        self._silence_seconds = settings.kafka.startup_timeout_s
        self._admin = admin_client(settings, errors)
        self._consumer: Consumer = new_client(Consumer, consumer_properties(settings), errors)

    def bounds(self) -> tuple[int, int]:
        """Offset of the first record still there, and behind the last committed one."""
        return self._offset(_EARLIEST), self._offset(_LATEST)

    def settled_end(self) -> int:
        """Offset behind the last committed record; raises RestartMayHelp when somebody's transaction is open."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            end = self._offset(_LATEST)
            written = self._offset(_LATEST, IsolationLevel.READ_UNCOMMITTED)
            if written <= end:
                return end
            if time.monotonic() > deadline:
                raise RestartMayHelp(
                    f"topic {self.topic} has an open transaction of somebody else at offset {end}",
                    "see who else writes to the journal; start again when that transaction has ended",
                )
            time.sleep(SLICE_SECONDS)

    def read(self, begin: int, end: int) -> Iterator[Found]:
        """Every committed record from `begin` to `end`, an end that `bounds` or `settled_end` told."""
        if begin >= end:
            return
        self._consumer.assign([TopicPartition(self.topic, 0, begin)])
        heard = time.monotonic()
        while True:
            for message in self._messages():
                error, offset = message.error(), cast("int", message.offset())
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    self._errors(error)
                    continue
                # The end of the partition as the brokers tell it: aborted and control records follow the last one.
                if offset >= end:
                    return
                if error is None:
                    yield _found(offset, message.value())
                heard = time.monotonic()  # after what the caller did meanwhile, which is not the brokers' silence
            self._errors.raise_any()
            if self._give_up() or time.monotonic() - heard > self._silence_seconds:
                raise RestartMayHelp(
                    f"topic {self.topic} gave no record for {time.monotonic() - heard:.0f} s, its end is at {end}",
                    "see that the brokers are up, then start again",
                )

    def _messages(self) -> list[Message]:
        """What has come; `consume` alone would wait until so many have."""
        first = self._consumer.poll(SLICE_SECONDS)
        return [] if first is None else [first, *self._consumer.consume(MOST_MESSAGES, 0.0)]

    def last(self, begin: int, end: int) -> Found | None:
        """The last committed record between the two."""
        look = LAST_RECORDS
        while True:
            first = max(begin, end - look)
            found = deque(self.read(first, end), maxlen=1)
            if found or first == begin:
                return found[0] if found else None
            look *= 10

    def anything_new(self, end: int, seconds: float) -> bool:
        """Whether a record is committed behind `end` within `seconds`."""
        ends = time.monotonic() + seconds
        while time.monotonic() < ends and not self._give_up():
            if any(True for _ in self.read(end, self._offset(_LATEST))):
                return True
            time.sleep(SLICE_SECONDS)
        return False

    def close(self) -> None:
        """Leaves."""
        self._consumer.close()

    def _offset(self, spec: OffsetSpec, isolation: IsolationLevel = IsolationLevel.READ_COMMITTED) -> int:
        partition = TopicPartition(self.topic, 0)
        futures = self._admin.list_offsets(
            {partition: spec}, isolation_level=isolation, request_timeout=REQUEST_SECONDS
        )
        try:
            return int(futures[partition].result().offset)
        except KafkaException as failed:
            raise service_error(failed.args[0], f"asking for the offsets of {self.topic}") from None


def _found(offset: int, value: bytes | None) -> Found:
    try:
        return Found(offset, journal.decode(value))
    except UndecodableJournalError as wrong:
        return Found(offset, None, str(wrong))


def entry_of(found: Found, topic: str) -> Entry:
    """The record's entry; raises PersonMustAct when it does not decode."""
    if found.entry is None:
        raise undecodable(topic, f"the record at offset {found.offset} does not decode: {found.why}")
    return found.entry


def undecodable(topic: str, problem: str) -> PersonMustAct:
    """What a journal that cannot be followed means."""
    return PersonMustAct(
        f"journal {topic}: {problem}",
        f"run the version that wrote it, and let nobody else write to it; or {NEW_MODEL}",
    )

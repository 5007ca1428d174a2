"""Learning journalled steps again: the records they name, in their order, each checked by its checksums."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from prototide.service import failpoints
from prototide.service.broker import Record, Source
from prototide.service.course import Course, JournalProblemError, after
from prototide.service.errors import NEW_MODEL, PersonMustAct, RestartMayHelp
from prototide.service.folding import Folded, fold
from prototide.service.gathering import take
from prototide.service.journal import Entry, Range, Step
from prototide.service.journal_reader import Found, entry_of, undecodable
from prototide.service.outlets import replay_outlets
from prototide.service.settings import Settings
from prototide.service.topics import Topology

CONSUME_RECORDS = 1000
CONSUME_SECONDS = 0.2
RECORD_BYTES = 200  # of a record apart from its value and key
MOST_AHEAD_BYTES = 32 * 2**20  # of one partition, read while another one is waited for


class ReplayObserver(Protocol):
    """Who is told; `metrics.Metrics`."""

    def step_replayed(self) -> None:
        """A step was learned again."""


class RangeReader:
    """Records of the train topic by range; what comes early waits, and a partition far ahead is paused."""

    def __init__(self, source: Source, course: Course, silence_seconds: float, give_up: Callable[[], bool]) -> None:
        self._source = source
        self._waiting: defaultdict[int, deque[Record]] = defaultdict(deque)
        self._bytes: defaultdict[int, int] = defaultdict(int)
        self._paused: set[int] = set()
        self._silence_seconds = silence_seconds
        self._give_up = give_up
        source.assign(course.positions)
        self._known = set(course.positions)

    def read(self, wanted: Range) -> list[Record]:
        """The records of a range; ranges of a partition come in order, without holes."""
        if wanted.partition not in self._known:  # it appeared while the model was live
            self._known.add(wanted.partition)
            self._source.assign_more({wanted.partition: wanted.begin})
        waiting = self._waiting[wanted.partition]
        heard = time.monotonic()
        while not waiting or waiting[-1].offset < wanted.end - 1:
            have = len(waiting)
            self._fetch(wanted.partition)
            if len(waiting) > have:
                heard = time.monotonic()
            if self._give_up() or time.monotonic() - heard > self._silence_seconds:
                raise RestartMayHelp(
                    f"{self._source.topic}/{wanted.partition} gave no record for {self._silence_seconds:g} s, "
                    f"the journal has records up to {wanted.end}",
                    "see that the brokers are up, then start again",
                )
        taken = []
        while waiting and waiting[0].offset < wanted.end:
            record = waiting.popleft()
            self._bytes[wanted.partition] -= _size(record)
            taken.append(record)
        return taken

    def _fetch(self, wanted: int) -> None:
        if wanted in self._paused:
            self._source.resume(wanted)
            self._paused.discard(wanted)
        first = self._source.poll(CONSUME_SECONDS)
        if first is None:
            return
        records = [first, *self._source.consume(CONSUME_RECORDS, 0.0)]
        for record in records:
            self._waiting[record.partition].append(record)
            self._bytes[record.partition] += _size(record)
        for partition in {record.partition for record in records} - self._paused - {wanted}:
            if self._bytes[partition] > MOST_AHEAD_BYTES:
                self._source.pause(partition)
                self._paused.add(partition)


def _size(record: Record) -> int:
    """Bytes, also of one that is empty."""
    return len(record.value or b"") + len(record.key or b"") + RECORD_BYTES


class Replay:
    """A model on its way along the journal."""

    def __init__(
        self,
        settings: Settings,
        topology: Topology,
        model: Any,
        course: Course,
        reader: RangeReader,
        observer: ReplayObserver,
        learning: Callable[[int], object],
    ) -> None:
        """`learning` is told the rows that are about to be learned, which may take long."""
        self.model = model
        self.course = course
        self._settings = settings
        self._topology = topology
        self._reader = reader
        self._observer = observer
        self._learning = learning

    def follow(self, found: Iterable[Found], give_up: Callable[[], bool]) -> None:
        """Learns what the records say; raises PersonMustAct where that is not what was learned then."""
        for each in found:
            self._apply(each.offset, entry_of(each, self._settings.topics.journal))
            if give_up():
                raise RestartMayHelp(f"asked to stop during the replay, at step {self.course.step}", "start again")

    def _apply(self, offset: int, entry: Entry) -> None:
        try:
            course = after(self.course, offset, entry)
        except JournalProblemError as problem:
            raise undecodable(self._settings.topics.journal, str(problem)) from None
        if course.model != self.course.model:
            raise RestartMayHelp("another instance began a new model meanwhile", "start again")
        if isinstance(entry, Step):
            self._check(entry, self._fold(entry))
            self._observer.step_replayed()
            failpoints.reached("replayed-step")
        self.course = course

    def _fold(self, step: Step) -> Folded:
        limits, skipped = self._settings.limits.record(), frozenset(step.skipped)
        records = [record for each in step.ranges for record in self._reader.read(each)]
        taken = take(records, limits, skipped)
        self._learning(sum(each.rows for each in taken))
        outlets = replay_outlets(self._settings, self._topology, step.encoding)
        return fold(self.model, taken, self.course.trained, outlets, learn=step.learned)

    def _check(self, step: Step, folded: Folded) -> None:
        """Unverified replay is hope."""
        for what, now, then in (
            ("records", len(folded.taken), sum(each.records for each in step.ranges)),
            ("CRC-32 of the records", folded.values_crc, step.values_crc),
            ("dead letters", len(folded.dead_letters), step.dead_letters),
            ("CRC-32 of the predictions", folded.predictions_crc, step.predictions_crc),
        ):
            if now != then:
                raise PersonMustAct(
                    f"step {step.number} cannot be repeated: {what} {now}, the journal says {then}",
                    f"run it with the versions and on the kind of machine that wrote the journal; or {NEW_MODEL}",
                )

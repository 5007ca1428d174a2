"""The loop's one step: records in, predicted and learned, delivered.

As data: bytes -> `wire` -> batches -> `folding` (one `learn`) -> outputs and a journal record -> `delivering` ->
`StepStats`.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np

from prototide.service import failpoints
from prototide.service.checkpoints import Checkpoint, Positions, Snapshot
from prototide.service.course import Course
from prototide.service.delivering import Committed, Delivering, Delivery
from prototide.service.folding import Folded, fold
from prototide.service.gathering import Gatherer, RecordSource, Taken
from prototide.service.journal import Range, Step
from prototide.service.outlets import live_outlets
from prototide.service.settings import Settings
from prototide.service.stacking import unknown, wrong
from prototide.service.steps import StepStats
from prototide.service.topics import Topology
from prototide.service.wire import RejectedRecord


class LaggingSource(RecordSource, Protocol):
    """Where records come from, and how many are still to come; `broker.Source`."""

    def lag(self, positions: Mapping[int, int]) -> Mapping[tuple[str, int], int]:
        """Records between the positions and the ends: (topic, partition) -> count."""


@dataclass(frozen=True, slots=True, eq=False)
class Learned:
    """A step in memory, not committed yet: what is told of it when it is."""

    course: Course  # behind it; its journal offset is not known yet
    stats: StepStats
    timestamps_ms: np.ndarray[Any, np.dtype[np.float64]]


class Worker:
    """Holds the model, where it is in the stream (learned, and committed), and records that wait for the next step."""

    def __init__(
        self,
        settings: Settings,
        topology: Topology,
        model: Any,
        course: Course,
        source: LaggingSource,
        delivering: Delivering,
        skip: Collection[tuple[int, int]] = (),
    ) -> None:
        """`model` is at `course`. `skip`: (partition, offset) of records that a person wants as dead letters."""
        self.model = model
        self.course = course  # of the model in memory
        self.committed = course  # what everybody may know
        self._settings = settings
        self._topology = topology
        self._source = source
        self._gatherer = Gatherer(settings, source, skip)
        self._delivering = delivering
        self._outlets = live_outlets(settings, topology)
        self._uncommitted: deque[Learned] = deque()

    def step(
        self, turned: Callable[[], object] = lambda: None, learning: Callable[[int], object] = lambda _: None
    ) -> list[StepStats]:
        """One micro-batch: predicted, learned, handed over; returns the steps that have been committed by now.

        The model in memory is ahead of what is committed by at most the steps of two transactions. After a crash these
        are done again, from the records. `turned` is called now and then while brokers are waited for,
        `learning` with the rows that are about to be learned.
        """
        # 1. Gather and decode.
        taken, decode_seconds = self._gatherer.gather(self._delivering.is_free)
        if taken:
            failpoints.reached("gathered")
            learning(sum(each.rows for each in taken))
            # 2. Predict each row, then learn it: the model of step s - 1 becomes that of step s, in memory.
            folded = fold(self.model, taken, self.course.trained, self._outlets, learn=self._settings.learn)
            failpoints.reached("learned")
            # 3. Hand over what one transaction holds: predictions, dead letters, the journal record.
            delivery = self._advance(folded, decode_seconds)
            self._delivering.submit(delivery, turned)
        # 4. Only what is committed has happened.
        return self._publish()

    def finish(self, turned: Callable[[], object] = lambda: None) -> list[StepStats]:
        """Returns when every learned step is committed."""
        self._delivering.finish(turned)
        return self._publish()

    def snapshot(self, room: Sequence[Any] = ()) -> Snapshot:
        """The model as it is between two steps, and what belongs to it; later steps do not change it.

        `room`: of the model's `snapshot_room`.
        """
        place = Checkpoint(
            step=self.course.step,
            trained=self.course.trained,
            positions={self._settings.topics.train: dict(self.course.positions)},
            arrays={},
            model={},
            model_id=self.course.model,
            journal=self.committed.journal if self.committed.step == self.course.step else None,
            fingerprint=self._settings.fingerprint(),
            topic_ids=self._topology.ids,
        )
        return Snapshot(self.model.snapshot(room), place)

    def moved_since(self, positions: Positions | None) -> bool:
        """Whether the worker is elsewhere than at `positions`."""
        return positions is None or positions.get(self._settings.topics.train) != self.course.positions

    def begin_partitions(self, partitions: Collection[int]) -> None:
        """Partitions that appeared are read from their beginning."""
        zeros = dict.fromkeys(partitions, 0)
        self.course = replace(self.course, positions={**zeros, **self.course.positions})
        self.committed = replace(self.committed, positions={**zeros, **self.committed.positions})

    def _advance(self, folded: Folded, decode_seconds: float) -> Delivery:
        ranges = self._ranges(folded.taken)
        learn, before = self._settings.learn, self.course
        self.course = Course(
            model=before.model,
            step=before.step + 1,
            trained=before.trained + learn,
            positions={**before.positions, **{each.partition: each.end for each in ranges}},
            journal=before.journal,
        )
        stamps = np.array([each.record.timestamp_ms for each in folded.taken if each.record.timestamp_ms], np.float64)
        self._uncommitted.append(Learned(self.course, self._stats(folded, decode_seconds), stamps))
        entry = Step(
            model=before.model,
            instance=self._settings.instance.id,
            time_ms=time.time_ns() // 1_000_000,
            number=self.course.step,
            learned=learn,
            ranges=ranges,
            values_crc=folded.values_crc,
            predictions_crc=folded.predictions_crc,
            dead_letters=len(folded.dead_letters),
            skipped=_skipped(folded.taken),
            encoding=self._outlets.encoding,
        )
        return Delivery(self.course.step, [*folded.predictions, *folded.dead_letters], entry)

    def _ranges(self, taken: Sequence[Taken]) -> tuple[Range, ...]:
        """Each partition's part of the step, from where the one before it ended."""
        counts: dict[int, int] = {}
        ends: dict[int, int] = {}
        for partition, offset in ((each.record.partition, each.record.offset) for each in taken):
            counts[partition] = counts.get(partition, 0) + 1
            ends[partition] = offset + 1
        at = self.course.positions
        return tuple(Range(each, at.get(each, 0), ends[each], count) for each, count in counts.items())

    def _stats(self, folded: Folded, decode_seconds: float) -> StepStats:
        learned, rows = folded.learned, folded.rows
        return StepStats(
            number=self.course.step,
            trained=self.course.trained,
            records=len(folded.taken),
            dead_letters=_reasons(folded.taken),
            rows=0 if rows is None else len(rows),
            rows_learned=0 if learned is None else int(learned.stats.get("rows", 0)),
            rows_unknown=0 if learned is None else unknown(learned.labels),
            errors=wrong([], None) if learned is None or rows is None else wrong(learned.labels, rows.labels),
            model={} if learned is None else learned.stats,
            class_shift={} if learned is None else self._class_shift(),
            model_bytes=self.model.nbytes,
            decode_seconds=decode_seconds,
            fit_seconds=folded.learn_seconds,
        )

    def _publish(self) -> list[StepStats]:
        return [self._happened(each) for each in self._delivering.committed()]

    def _happened(self, committed: Committed) -> StepStats:
        learned = self._uncommitted.popleft()
        assert learned.course.step == committed.number  # they are committed in order
        journal = learned.course.journal if committed.journal is None else committed.journal
        self.committed = replace(learned.course, journal=journal)
        return replace(
            learned.stats,
            journal=committed.journal,
            commit_seconds=committed.seconds,
            step_seconds=learned.stats.decode_seconds + learned.stats.fit_seconds + committed.seconds,
            latency_seconds=np.maximum(0.0, committed.at - learned.timestamps_ms / 1000),
            lag=self._source.lag(self.committed.positions),
        )

    def _class_shift(self) -> dict[str, float]:
        moved = self.model.moved_classes(self._settings.metrics.top_classes)
        return {str(label): float(shift) for label, shift in reversed(moved)}  # of equal texts the one that moved more


def _reasons(taken: Sequence[Taken]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for each in taken:
        if isinstance(each.decoded, RejectedRecord):
            counts[str(each.decoded.reason)] = counts.get(str(each.decoded.reason), 0) + 1
    return counts


def _skipped(taken: Sequence[Taken]) -> tuple[tuple[int, int], ...]:
    return tuple((each.record.partition, each.record.offset) for each in taken if each.skipped)

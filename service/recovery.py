"""A start with a journal: the newest checkpoint, the journalled steps behind it, and only then the right to write.

    1. What can fail, before anybody is disturbed   `survey`, `Recovery.replay`
    2. Is there a live owner?                       `Recovery.watch_owner`
    3. Earlier owners are fenced                    `TransactionalSink.fence`
    4. What they committed last is learned, too     `Recovery.catch_up`
    5. A new model's genesis is committed           `Recovery.begin`

`prototide run --fresh` leaves the replay out.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

from prototide.service import failpoints, journal
from prototide.service.broker import Output, Source
from prototide.service.checkpoints import Checkpoint, Positions
from prototide.service.course import Course, Survey, begun
from prototide.service.delivering import TransactionSink
from prototide.service.errors import NEW_MODEL, PersonMustAct, RestartMayHelp
from prototide.service.journal import Genesis
from prototide.service.journal_reader import JournalReader, undecodable
from prototide.service.replaying import RangeReader, Replay, ReplayObserver
from prototide.service.restoring import (
    RejectionObserver,
    Start,
    check_available,
    check_belongs,
    check_ids,
    check_settings,
    model_of,
    new_model,
    new_positions,
    valid_checkpoints,
)
from prototide.service.settings import Settings
from prototide.service.stores import Store, reachable
from prototide.service.topics import Topology

log = logging.getLogger(__name__)

_KEEP = f"set the journal's retention.ms=-1 and retention.bytes=-1, and {NEW_MODEL}"


class RecoveryObserver(RejectionObserver, ReplayObserver, Protocol):
    """Who is told; `metrics.Metrics`."""


class Recovery:
    """One start: what was found, and the model as far as it is replayed."""

    def __init__(
        self,
        settings: Settings,
        topology: Topology,
        source: Source,
        reader: JournalReader,
        observer: RecoveryObserver,
        give_up: Callable[[], bool],
        learning: Callable[[int], object],
    ) -> None:
        """`give_up` is asked now and then: the process is alive, and may have to stop. `learning`: as `Replay`'s."""
        self._settings = settings
        self._topology = topology
        self._source = source
        self._reader = reader
        self._observer = observer
        self._give_up = give_up
        self._learning = learning
        self._look()
        self._replay: Replay | None = None
        self._saved: Positions | None = None

    def _look(self) -> None:
        """Where the topics begin and end now; `train` after the journal: a live owner learns what comes meanwhile.

        The partitions, too, are those of now: the topology was looked at before the warm-up.
        """
        self._low, self._end = self._reader.bounds()
        self._watermarks = self._source.watermarks(self._source.partitions())

    def replay(self, store: Store) -> None:
        """The model at the journal's present end; raises PersonMustAct for what must not be continued."""
        with reachable(self._settings.checkpoint.uri):
            checkpoint, survey = self._newest(store)
        failpoints.reached("checkpoint-read")
        if survey.course is None or survey.base is None:
            if self._low > 0:
                raise PersonMustAct(
                    f"journal {self._reader.topic} begins at offset {self._low}, its genesis was deleted", _KEEP
                )
            return
        if survey.genesis is not None:
            self._check_genesis(survey.genesis)
        topic = self._settings.topics.train
        check_available(topic, self._watermarks, survey.base.positions, survey.course.positions)
        model = new_model(self._settings) if checkpoint is None else model_of(self._settings, checkpoint)
        self._saved = None if checkpoint is None else checkpoint.positions
        self._replay = self._replay_from(model, survey.base)
        log.info(
            "resumed from %s, replaying steps %d to %d",
            "the journal's genesis" if checkpoint is None else f"the checkpoint of step {checkpoint.step}",
            survey.base.step + 1,
            survey.course.step,
        )
        self._replay.follow(self._reader.read(survey.base.journal, self._end), self._give_up)
        failpoints.reached("replayed")

    def watch_owner(self) -> None:
        """Raises RestartMayHelp when another instance is alive: it is not disturbed."""
        instance, silence = self._settings.instance, self._settings.instance.takeover_silence_s
        low, end = self._reader.bounds()  # now: what was written during the replay is no sign of life any more
        last = self._reader.last(low, end)
        if last is None or (last.entry is not None and last.entry.instance == instance.id):
            return
        owner = "unknown" if last.entry is None else last.entry.instance
        log.info("the journal was last written by %s: watching it for %g s", owner, silence)
        if self._reader.anything_new(end, silence):
            raise RestartMayHelp(
                f"instance {owner} is alive and owns {self._settings.kafka.group_id}",
                f"stop it first (this one is {instance.id}), or give this one another kafka.group_id",
            )

    def catch_up(self, *, fresh: bool) -> None:
        """Learns what earlier owners committed until they were fenced; a fresh model needs none of it."""
        end = self._reader.settled_end()
        if fresh:
            return
        if self._replay is not None:
            self._replay.follow(self._reader.read(self._replay.course.journal, end), self._give_up)
        elif any(True for _ in self._reader.read(self._end, end)):
            raise RestartMayHelp("another instance began a model meanwhile", "start again")

    def begin(self, sink: TransactionSink) -> Start:
        """Where the live model starts; a new one's genesis is committed, so that its start survives a crash."""
        if self._replay is not None:
            course = self._replay.course
            # A partition that nobody learned from yet is read from its beginning.
            positions = {**dict.fromkeys(self._watermarks, 0), **course.positions}
            return Start(self._replay.model, replace(course, positions=positions), self._saved)
        settings = self._settings
        genesis = Genesis(
            model=uuid.uuid4().hex,
            instance=settings.instance.id,
            time_ms=time.time_ns() // 1_000_000,
            topic=settings.topics.train,
            positions=new_positions(self._watermarks, settings.start_from),
            fingerprint=settings.fingerprint(),
            topic_ids=self._topology.ids,
        )
        model = new_model(settings)
        (offset,) = sink.commit([], [Output(settings.topics.journal, 0, None, journal.encode(genesis), ())])
        failpoints.reached("genesis")
        log.info("new model %s starts at %s: %s", genesis.model, settings.start_from, dict(genesis.positions))
        return Start(model, begun(genesis, offset), None)

    def _newest(self, store: Store) -> tuple[Checkpoint | None, Survey]:
        """The newest valid checkpoint of the journal's newest model, and what the journal says behind it."""
        for checkpoint in valid_checkpoints(store, self._observer):
            if checkpoint.model_id and self._settings.topics.journal not in checkpoint.topic_ids:
                self._skipped(checkpoint, f"it is not of journal {self._settings.topics.journal}")
                continue
            self._check_place(checkpoint)
            survey = self._survey(checkpoint)
            if survey.genesis is None:
                check_belongs(checkpoint, self._settings, self._topology)
                return checkpoint, survey
            self._skipped(checkpoint, "a new model began after it")
        return None, self._survey(None)

    def _skipped(self, checkpoint: Checkpoint, why: str) -> None:
        log.error("checkpoint of step %d is skipped: %s", checkpoint.step, why)
        self._observer.checkpoint_rejected()

    def _check_place(self, checkpoint: Checkpoint) -> None:
        """Raises PersonMustAct for one without a place in the journal."""
        what = f"the checkpoint of step {checkpoint.step} in {self._settings.checkpoint.uri}"
        if not checkpoint.model_id or checkpoint.journal is None:
            raise PersonMustAct(
                f"{what} was made with delivery=at_least_once", f"set delivery=at_least_once, or {NEW_MODEL}"
            )
        if checkpoint.journal > self._end:
            self._look()  # a live owner may have saved it after the first look
        if checkpoint.journal > self._end:
            check_ids(checkpoint.topic_ids, self._topology.ids)  # a re-created journal is told as such
            raise PersonMustAct(
                f"{what} is ahead of journal {self._settings.topics.journal}: it includes offset "
                f"{checkpoint.journal - 1}, the journal ends at {self._end}",
                f"the journal lost records: restore it, or {NEW_MODEL}",
            )

    def _survey(self, checkpoint: Checkpoint | None) -> Survey:
        topic, begin = self._settings.topics.journal, self._low
        course = None
        if checkpoint is not None and checkpoint.journal is not None:
            begin = checkpoint.journal
            positions = checkpoint.positions[self._settings.topics.train]
            course = Course(checkpoint.model_id, checkpoint.step, checkpoint.trained, positions, begin)
        survey = Survey(course)
        for found in self._reader.read(max(begin, self._low), self._end):
            if found.entry is None:
                survey.undecodable(found.offset, found.why)
            else:
                survey.take(found.offset, found.entry)
        if checkpoint is not None and begin < self._low and survey.genesis is None:
            raise PersonMustAct(
                f"journal {topic} begins at offset {self._low}, the checkpoint of step {checkpoint.step} goes on "
                f"at {begin}: the steps between are lost",
                _KEEP,
            )
        if survey.problem is not None:
            raise undecodable(topic, survey.problem)
        return survey

    def _check_genesis(self, genesis: Genesis) -> None:
        topics = self._settings.topics
        check_settings(f"model {genesis.model} of journal {topics.journal}", genesis.fingerprint, self._settings)
        if genesis.topic != topics.train:
            raise PersonMustAct(
                f"model {genesis.model} learns from topic {genesis.topic}, topics.train is {topics.train}",
                f"correct topics.train, or {NEW_MODEL}",
            )
        check_ids(genesis.topic_ids, self._topology.ids)

    def _replay_from(self, model: Any, base: Course) -> Replay:
        silence = self._settings.kafka.startup_timeout_s
        records = RangeReader(self._source, base, silence, self._give_up)
        return Replay(self._settings, self._topology, model, base, records, self._observer, self._learning)

"""Everything until the first record may be read."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

from prototide.service import failpoints
from prototide.service.broker import CLOSE_TIMEOUT_SECONDS, Sink, Source
from prototide.service.checkpointing import CheckpointWriter
from prototide.service.clients import ClientErrors, consumer_properties, producer_properties, transactional_properties
from prototide.service.delivering import Delivering, Direct, Transactor
from prototide.service.health import Readiness
from prototide.service.journal_reader import JournalReader
from prototide.service.life_cycle import LifeCycle, Phase
from prototide.service.metrics import Metrics
from prototide.service.recovery import Recovery
from prototide.service.restoring import Start, restore, warm_up
from prototide.service.settings import Settings
from prototide.service.stores import Store, reachable, set_aside
from prototide.service.topic_watch import TopicWatch
from prototide.service.topics import Topology, inspect_topics
from prototide.service.transactions import TransactionalSink
from prototide.service.wishes import Wishes
from prototide.service.worker import Worker

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a live service is made of."""

    worker: Worker
    source: Source
    writer: CheckpointWriter
    watch: TopicWatch


@dataclass(frozen=True, slots=True)
class Starting:
    """What a start needs; `stopped`: asked to stop, `overdue`: asked longer ago than the grace period.

    `learning` is told the rows that are about to be learned.
    """

    settings: Settings
    store: Store
    metrics: Metrics
    life: LifeCycle
    readiness: Readiness
    errors: ClientErrors
    stopped: Callable[[], bool]
    overdue: Callable[[], bool]
    learning: Callable[[int], object]
    wishes: Wishes

    def start(self, stack: ExitStack) -> Parts:
        """The parts, ready to step; what must be closed again goes to `stack`. Raises ServiceError."""
        settings = self.settings
        topology = inspect_topics(settings, self.stopped)
        self.life.enter(Phase.RESTORING)
        source = Source(consumer_properties(settings), settings.topics.train, self.errors)
        stack.callback(source.close)
        make = self._exactly_once if settings.delivery == "exactly_once" else self._at_least_once
        start, delivering = make(topology, source, stack)
        self.metrics.model_restored(start.course.trained, start.model.nbytes)
        source.assign(start.course.positions)
        failpoints.reached("assigned")
        return Parts(
            Worker(settings, topology, start.model, start.course, source, delivering, self.wishes.skip),
            source,
            CheckpointWriter(settings, self.store, self.metrics, start.saved),
            TopicWatch(settings, topology.ids, self.errors),
        )

    def _exactly_once(self, topology: Topology, source: Source, stack: ExitStack) -> tuple[Start, Delivering]:
        """The start of `recovery`, in its order."""
        settings, fresh = self.settings, self.wishes.fresh
        sizes = topology.max_message_bytes.values()
        properties = transactional_properties(settings, min(sizes), max(sizes))
        sink = TransactionalSink(properties, self.errors, settings.kafka.transaction_deadline_s, self.overdue)
        stack.callback(sink.close)
        reader = JournalReader(settings, self.errors, self.stopped)
        stack.callback(reader.close)
        self._warm_up()  # first: a replay would compile, too, deaf to `stopped`
        recovery = Recovery(settings, topology, source, reader, self.metrics, self.stopped, self.learning)
        if not fresh:
            recovery.replay(self.store)
        recovery.watch_owner()
        sink.fence(settings.kafka.startup_timeout_s)
        failpoints.reached("fenced")
        recovery.catch_up(fresh=fresh)
        if fresh:
            with reachable(settings.checkpoint.uri):
                self._set_aside()
        start = recovery.begin(sink)
        interval_seconds = settings.commit.interval_ms / 1000
        transactor = Transactor(sink, settings.topics.journal, settings.instance.id, interval_seconds)
        transactor.start()
        stack.callback(transactor.close, CLOSE_TIMEOUT_SECONDS)
        return start, transactor

    def _at_least_once(self, topology: Topology, source: Source, stack: ExitStack) -> tuple[Start, Delivering]:
        settings = self.settings
        sizes = topology.max_message_bytes.values()
        sink = Sink(producer_properties(settings, min(sizes), max(sizes)), self.errors, self.overdue)
        stack.callback(sink.close)
        with reachable(settings.checkpoint.uri):
            if self.wishes.fresh:
                self._set_aside()
            start = restore(settings, self.store, topology, source.watermarks(topology.train_partitions), self.metrics)
        self._warm_up()
        return start, Direct(sink)

    def _warm_up(self) -> None:
        self.readiness.set("learner", "being compiled, the first time for one to three minutes")
        warm_up(self.settings, self.stopped)
        self.readiness.set("learner", None)

    def _set_aside(self) -> None:
        for name in set_aside(self.store, f"before-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"):
            log.warning("a new model begins: an earlier one's checkpoint is now %s", name)

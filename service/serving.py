"""The service put together: every part made from the settings, then the loop until asked to stop.

starting (brokers, topics) -> restoring (checkpoint) -> live (steps) -> draining (last checkpoint) -> stopped
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prototide.service import checkpoints, failpoints
from prototide.service.broker import CLOSE_TIMEOUT_SECONDS, Sink, Source
from prototide.service.checkpointing import CheckpointWriter
from prototide.service.clients import ClientErrors, consumer_properties, producer_properties, transactional_properties
from prototide.service.delivering import Delivering, Direct, Transactor
from prototide.service.drift import DriftMonitor
from prototide.service.errors import RestartMayHelp
from prototide.service.health import DeadLetterStorm, Heartbeat, Readiness
from prototide.service.http_server import HealthServer
from prototide.service.journal_reader import JournalReader
from prototide.service.metrics import Metrics, new_registry
from prototide.service.recovery import Recovery
from prototide.service.restoring import Start, restore, warm_up
from prototide.service.settings import Settings
from prototide.service.steps import StepStats
from prototide.service.stopping import Stopping
from prototide.service.topic_watch import TopicWatch
from prototide.service.topics import Topology, inspect_topics
from prototide.service.transactions import TransactionalSink
from prototide.service.wishes import Wishes
from prototide.service.worker import Worker

log = logging.getLogger(__name__)

OnStep = Callable[[StepStats], None]


def serve(settings: Settings, stopping: Stopping, on_step: OnStep | None = None, wishes: Wishes | None = None) -> None:
    """Runs the service until `stopping` says so; raises ServiceError. `on_step` is told of every delivered step."""
    folder = checkpoints.checkpoint_folder(settings.checkpoint.uri)
    metrics = Metrics(
        new_registry(),
        topic=settings.topics.train,
        top_classes=settings.metrics.top_classes,
        window=settings.drift.window,
        detectors=settings.drift.detectors,
    )
    observers = Observers(settings, metrics, on_step)
    server = HealthServer(
        settings.http.host,
        settings.http.port,
        heartbeat=observers.heartbeat,
        readiness=observers.readiness,
        render=metrics.render,
        status=metrics.status,
    )
    with contextlib.ExitStack() as stack:
        server.start()
        stack.callback(server.close)
        log.info("metrics and health at http://%s:%d", settings.http.host, server.port)
        errors = ClientErrors()

        def overdue() -> bool:
            """Asked now and then by whatever waits for brokers: the process is alive, and may have to stop."""
            observers.turned(errors.brokers_up)
            return stopping.is_overdue()

        def stopped() -> bool:
            """The same before the service is live: there is nothing to finish."""
            return overdue() or stopping.is_requested()

        try:
            parts = start(settings, folder, metrics, errors, stopped, stopping, wishes or Wishes(), stack)
        except RestartMayHelp:
            if stopping.is_requested():
                return
            raise
        live(parts, observers, stopping, overdue)


@dataclass(frozen=True, slots=True)
class Parts:
    """What a live service is made of."""

    worker: Worker
    source: Source
    writer: CheckpointWriter
    watch: TopicWatch


def start(
    settings: Settings,
    folder: Path,
    metrics: Metrics,
    errors: ClientErrors,
    stopped: Callable[[], bool],
    stopping: Stopping,
    wishes: Wishes,
    stack: contextlib.ExitStack,
) -> Parts:
    """Everything until the first record may be read; what must be closed again goes to `stack`."""
    topology = inspect_topics(settings, stopped)
    source = Source(consumer_properties(settings), settings.topics.train, errors)
    stack.callback(source.close)
    sizes = topology.max_message_bytes.values()
    delivering: Delivering
    if settings.delivery == "exactly_once":
        properties = transactional_properties(settings, min(sizes), max(sizes))
        sink = TransactionalSink(properties, errors, settings.kafka.transaction_deadline_s, stopping.is_overdue)
        stack.callback(sink.close)
        begun = _recovered(settings, folder, topology, source, sink, metrics, errors, stopped, wishes, stack)
        transactor = Transactor(sink, settings.topics.journal, settings.instance.id, settings.commit.interval_ms / 1000)
        transactor.start()
        stack.callback(transactor.close, CLOSE_TIMEOUT_SECONDS)
        delivering = transactor
    else:
        direct = Sink(producer_properties(settings, min(sizes), max(sizes)), errors, stopped)
        stack.callback(direct.close)
        if wishes.fresh:
            _set_aside(folder)
        begun = restore(settings, folder, topology, source.watermarks(topology.train_partitions), metrics)
        warm_up(settings)
        delivering = Direct(direct)
    metrics.model_restored(begun.course.trained, begun.model.nbytes)
    source.assign(begun.course.positions)
    failpoints.reached("assigned")
    worker = Worker(settings, topology, begun.model, begun.course, source, delivering, wishes.skip)
    writer = CheckpointWriter(settings, folder, metrics, begun.saved)
    watch = TopicWatch(settings, topology.ids, errors)
    return Parts(worker, source, writer, watch)


def _recovered(
    settings: Settings,
    folder: Path,
    topology: Topology,
    source: Source,
    sink: TransactionalSink,
    metrics: Metrics,
    errors: ClientErrors,
    stopped: Callable[[], bool],
    wishes: Wishes,
    stack: contextlib.ExitStack,
) -> Start:
    """The start of `recovery`, in its order."""
    reader = JournalReader(settings, errors, stopped)
    stack.callback(reader.close)
    recovery = Recovery(settings, topology, source, reader, metrics, stopped)
    if not wishes.fresh:
        recovery.replay(folder)
    warm_up(settings)
    recovery.watch_owner()
    sink.fence(settings.kafka.startup_timeout_s)
    failpoints.reached("fenced")
    recovery.catch_up(fresh=wishes.fresh)
    if wishes.fresh:
        _set_aside(folder)
    return recovery.begin(sink)


def _set_aside(folder: Path) -> None:
    for path in checkpoints.set_aside(folder, f"before-{time.strftime('%Y%m%dT%H%M%S', time.gmtime())}"):
        log.warning("a new model begins: the earlier one's checkpoint is now %s", path)


def live(parts: Parts, observers: Observers, stopping: Stopping, turned: Callable[[], object]) -> None:
    """Steps and what is due between them, until asked to stop; ends with a checkpoint of the last step."""
    worker, source, writer = parts.worker, parts.source, parts.writer

    def publish(steps: Sequence[StepStats]) -> None:
        for stats in steps:
            observers.stepped(stats)
            writer.committed(stats.number, stats.journal)
            failpoints.reached("published")

    if writer.saved is None:
        writer.submit(worker.snapshot())  # a new model keeps its start positions, whatever `start_from` says
    observers.live()
    log.info("live at step %d", worker.course.step)
    try:
        while not stopping.is_requested():
            steps = worker.step(turned)
            publish(steps)
            if not steps:
                observers.idle(source.lag(worker.committed.positions))
            observers.turned(source.brokers_up)
            worker.begin_partitions(source.keep_up(worker.committed.positions))
            parts.watch.check()
            if writer.is_due() and worker.moved_since(writer.saved):
                writer.submit(worker.snapshot())
        failpoints.reached("draining")
        publish(worker.finish(turned))
    except BaseException:
        writer.finish()  # without another one: the model may have learned what was not delivered
        raise
    if worker.moved_since(writer.saved):
        writer.submit(worker.snapshot())
    writer.finish()
    log.info("stopped at step %d", worker.course.step)


class Observers:
    """Who learns of a delivered step: metrics, drift, health, and whoever asked."""

    def __init__(self, settings: Settings, metrics: Metrics, on_step: OnStep | None) -> None:
        self.heartbeat = Heartbeat()
        self.readiness = Readiness([("start", "waiting for brokers, topics and the model")])
        self._metrics = metrics
        self._drift = DriftMonitor(settings.drift.detectors, settings.drift.window)
        self._storm = DeadLetterStorm(settings.dead_letters.max_ratio, settings.dead_letters.window)
        self._on_step = on_step
        metrics.watch_ready(lambda: self.readiness.ready)
        metrics.build_info(settings.core.device, "plain")

    def live(self) -> None:
        """The first step can come."""
        self.readiness.set("start", None)

    def turned(self, brokers_up: bool) -> None:
        """The loop turned, with or without a step."""
        self.heartbeat.touch()
        self.readiness.set("brokers", None if brokers_up else "no broker answers")

    def idle(self, lag: Mapping[tuple[str, int], int]) -> None:
        """No record came."""
        self._metrics.observe_lag(lag)

    def stepped(self, stats: StepStats) -> None:
        """A step was delivered."""
        self._metrics.observe(stats)
        for event in self._drift.update(stats.errors):
            if event.kind == "drift":
                self._metrics.drift_detected(event.detector)
        self._metrics.drift_warning(self._drift.warnings)
        storm = self._storm.update(stats.records, sum(stats.dead_letters.values()))
        self.readiness.set("dead letters", storm)
        if self._on_step is not None:
            self._on_step(stats)

"""The service put together: every part made from the settings, then the loop until asked to stop.

starting (brokers, topics) -> restoring (checkpoint) -> live (steps) -> draining (last checkpoint) -> stopped
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping

from prototide.service import checkpoints
from prototide.service.broker import Sink, Source
from prototide.service.checkpointing import CheckpointWriter
from prototide.service.clients import ClientErrors, consumer_properties, producer_properties
from prototide.service.drift import DriftMonitor
from prototide.service.errors import RestartMayHelp
from prototide.service.health import DeadLetterStorm, Heartbeat, Readiness
from prototide.service.http_server import HealthServer
from prototide.service.metrics import Metrics, new_registry
from prototide.service.restoring import restore, warm_up
from prototide.service.settings import Settings
from prototide.service.steps import StepStats
from prototide.service.stopping import Stopping
from prototide.service.topics import inspect_topics
from prototide.service.worker import Worker

log = logging.getLogger(__name__)

OnStep = Callable[[StepStats], None]


def serve(settings: Settings, stopping: Stopping, on_step: OnStep | None = None) -> None:
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

        try:
            topology = inspect_topics(settings, lambda: overdue() or stopping.is_requested())
        except RestartMayHelp:
            if stopping.is_requested():
                return
            raise
        source = Source(consumer_properties(settings), settings.topics.train, errors)
        stack.callback(source.close)
        sizes = topology.max_message_bytes.values()
        sink = Sink(producer_properties(settings, min(sizes), max(sizes)), errors, overdue)
        stack.callback(sink.close)
        start = restore(settings, folder, topology, source.watermarks(topology.train_partitions), metrics)
        metrics.model_restored(start.step, start.model.nbytes)
        warm_up(settings)
        source.assign(start.positions)
        worker = Worker(settings, topology, start.model, source, sink, start.positions, start.step)
        live(worker, source, CheckpointWriter(settings, folder, metrics, start.saved), observers, stopping)


def live(worker: Worker, source: Source, writer: CheckpointWriter, observers: Observers, stopping: Stopping) -> None:
    """Steps and what is due between them, until asked to stop; ends with a checkpoint of the last step."""
    if writer.saved is None:
        writer.submit(worker.snapshot())  # a new model keeps its start positions, whatever `start_from` says
    observers.live()
    log.info("live at step %d", worker.steps_done)
    try:
        while not stopping.is_requested():
            stats = worker.step()
            if stats is not None:
                observers.stepped(stats)
            else:
                observers.idle(source.lag(worker.positions))
            observers.turned(source.brokers_up)
            for partition in source.keep_up(worker.positions):
                worker.positions[partition] = 0
            if writer.is_due() and worker.moved_since(writer.saved):
                writer.submit(worker.snapshot())
    except BaseException:
        writer.finish()  # without another one: the model may have learned what was not delivered
        raise
    if worker.moved_since(writer.saved):
        writer.submit(worker.snapshot())
    writer.finish()
    log.info("stopped at step %d", worker.steps_done)


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

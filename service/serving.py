"""The service put together: every part made from the settings, then the loop until asked to stop.

The phases of its life: `life_cycle`.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import threading
from collections.abc import Callable, Mapping, Sequence

from prototide.core import FastKMeansClassifier
from prototide.service import failpoints
from prototide.service.clients import ClientErrors
from prototide.service.drift import DriftMonitor
from prototide.service.errors import RestartMayHelp
from prototide.service.health import DeadLetterStorm, Heartbeat, Readiness
from prototide.service.http_server import HealthServer
from prototide.service.life_cycle import LifeCycle, Phase
from prototide.service.metrics import Metrics, new_registry
from prototide.service.settings import Settings
from prototide.service.starting import Parts, Starting
from prototide.service.steps import StepStats
from prototide.service.stopping import Stopping
from prototide.service.stores import store_of
from prototide.service.wishes import NO_WISHES, Wishes

log = logging.getLogger(__name__)

_NOT_READY = {
    Phase.STARTING: "starting: waiting for brokers and topics",
    Phase.RESTORING: "restoring: the model is being replayed",
    Phase.DRAINING: "draining: asked to stop",
    Phase.STOPPED: "stopped",
}
LEAVE_SECONDS = 5.0  # for a checkpoint that is being written when the service fails
SLOWEST_ROW_SECONDS = 0.02  # to learn one: the slowest engine on a large model, on a busy machine
YOUNG_OBJECTS = 100_000  # before the collector looks: a step of small records makes as many, which go by themselves
OnStep = Callable[[StepStats], None]


def serve(settings: Settings, stopping: Stopping, on_step: OnStep | None = None, wishes: Wishes = NO_WISHES) -> None:
    """Runs the service until `stopping` says so; raises ServiceError. `on_step` is told of every delivered step."""
    store = store_of(settings.checkpoint.uri)
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

        loop = threading.get_ident()

        def overdue() -> bool:
            """Asked now and then by whatever waits for brokers: the process is alive, and may have to stop."""
            if threading.get_ident() == loop:  # that another thread waits says nothing about the loop
                observers.turned(errors.brokers_up)
            return stopping.is_overdue()

        def stopped() -> bool:
            """The same before the service is live: there is nothing to finish."""
            return overdue() or stopping.is_requested()

        stack.callback(observers.life.enter, Phase.STOPPED)
        try:
            starting = Starting(
                settings, store, metrics, observers.life, observers.readiness, errors, stopped, overdue,
                observers.learning, wishes,
            )  # fmt: skip
            parts = starting.start(stack)
        except RestartMayHelp:
            if stopping.is_requested():
                return
            raise
        live(parts, observers, stopping, overdue)


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
    gc.freeze()  # what the start has made stays: the collector need not walk through it again and again
    gc.set_threshold(YOUNG_OBJECTS)
    observers.life.enter(Phase.LIVE)
    log.info("live at step %d", worker.course.step)
    try:
        while not stopping.is_requested():
            steps = worker.step(turned, observers.learning)
            publish(steps)
            if not steps:
                observers.idle(source.lag(worker.committed.positions))
            observers.turned(source.brokers_up)
            worker.begin_partitions(source.keep_up(worker.committed.positions))
            parts.watch.check()
            if writer.is_due() and worker.moved_since(writer.saved):
                room = writer.room(worker.model.snapshot_room)
                if room is not None:
                    writer.submit(worker.snapshot(room))
        observers.life.enter(Phase.DRAINING)
        failpoints.reached("draining")
        publish(worker.finish(turned))
    except BaseException:
        writer.finish(LEAVE_SECONDS)  # without another one: the model may have learned what was not delivered
        raise
    if writer.finish(stopping.seconds_left) and worker.moved_since(writer.saved):
        writer.submit(worker.snapshot())
        writer.finish(stopping.seconds_left)
    log.info("stopped at step %d", worker.course.step)


class Observers:
    """Who learns of a delivered step: metrics, drift, health, and whoever asked."""

    def __init__(self, settings: Settings, metrics: Metrics, on_step: OnStep | None) -> None:
        self.heartbeat = Heartbeat()
        self.readiness = Readiness()
        self.life = LifeCycle(self._entered)
        self._metrics = metrics
        self._drift = DriftMonitor(settings.drift.detectors, settings.drift.window)
        self._storm = DeadLetterStorm(settings.dead_letters.max_ratio, settings.dead_letters.window)
        self._on_step = on_step
        metrics.watch_ready(lambda: self.readiness.ready)
        device = settings.core.device  # whether it is there is asked when the model goes there
        engine = "gpu" if device != "cpu" else FastKMeansClassifier(**settings.core.classifier_parameters()).engine
        metrics.build_info(device, engine)

    def _entered(self, phase: Phase) -> None:
        self.readiness.set("phase", _NOT_READY.get(phase))

    def turned(self, brokers_up: bool) -> None:
        """The loop turned, with or without a step."""
        self.heartbeat.touch()
        self.readiness.set("brokers", None if brokers_up else "no broker answers")

    def learning(self, rows: int) -> None:
        """So many rows are about to be learned, in one turn of the loop."""
        self.heartbeat.touch(rows * SLOWEST_ROW_SECONDS)

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
        self._metrics.dead_letter_storm(storm is not None)
        if self._on_step is not None:
            self._on_step(stats)

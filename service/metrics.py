"""The service's numbers as Prometheus series; the only module that knows ``prometheus_client``.

Fed with plain data after a step's delivery, so that a series never tells of a step that nobody else can see.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import math
import platform
import threading
from collections.abc import Callable, Iterable, Mapping

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.registry import Collector

from prototide.service.prequential import PrequentialWindow
from prototide.service.steps import StepStats
from prototide.service.wire import DeadLetterReason

_STAGE_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_LATENCY_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600)
_CHECKPOINT_SECONDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_STEP_ROWS = (1, 4, 16, 64, 256, 1024, 2048, 4096, 8192, 16384, 65536)

# The classifier's statistic -> the series it feeds.
_MODEL_GAUGES = {
    "shift": ("prototide_shift", "Mass-weighted mean movement of the prototypes in the last step"),
    "shift_max": ("prototide_shift_max", "Largest movement of one prototype in the last step"),
    "active_centroids": ("prototide_centroids", "Active prototypes"),
    "classes": ("prototide_classes", "Known classes"),
}
_MODEL_COUNTERS = {
    "new_classes": ("prototide_classes_discovered", "Classes first seen"),
    "born": ("prototide_prototypes_born", "Prototypes born"),
    "num_merged": ("prototide_prototypes_merged", "Prototypes merged into another one"),
    "pruned": ("prototide_prototypes_pruned", "Prototypes pruned"),
}


def new_registry() -> CollectorRegistry:
    """A registry of its own with what the process says about itself: memory, processor time, open files."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    return registry


class Metrics:
    """Every series of the service on `registry`, at zero until something happens."""

    def __init__(
        self,
        registry: CollectorRegistry,
        *,
        topic: str = "train",
        top_classes: int = 20,
        window: int = 1000,
        detectors: Iterable[str] = (),
    ) -> None:
        self._registry = registry
        self._top_classes = top_classes
        self._window = PrequentialWindow(window)
        self._rows_metrics(registry, topic)
        self._model_metrics(registry)
        self._quality_metrics(registry, detectors)
        self._stage_metrics(registry)
        self._checkpoint_metrics(registry)
        self._ready = Gauge("prototide_ready", "1 when /readyz says 200", registry=registry)
        self._build = Gauge(
            "prototide_build_info",
            "What is running",
            ("version", "python", "torch", "device", "engine"),
            registry=registry,
        )

    def _rows_metrics(self, registry: CollectorRegistry, topic: str) -> None:
        self._rows_predicted = Counter("prototide_rows_predicted", "Rows predicted", registry=registry)
        self._rows_learned = Counter("prototide_rows_learned", "Rows learned", registry=registry)
        self._rows_unknown = Counter("prototide_rows_unknown", "Rows answered unknown", registry=registry)
        self._records = Counter(
            "prototide_records", "Train records processed, dead letters included", ("topic",), registry=registry
        ).labels(topic)
        self._dead_letters = Counter(
            "prototide_dead_letters", "Records sent to the dead-letter topic", ("reason",), registry=registry
        )
        for reason in DeadLetterReason:
            self._dead_letters.labels(reason.value)
        self._storm = Gauge(
            "prototide_dead_letter_storm",
            "1 while more than dead_letters.max_ratio are dead letters",
            registry=registry,
        )
        self._lag = Gauge(
            "prototide_consumer_lag_records", "High watermark minus position", ("topic", "partition"), registry=registry
        )

    def _model_metrics(self, registry: CollectorRegistry) -> None:
        self._steps = Counter("prototide_steps", "Training steps done in this process", registry=registry)
        self._replayed = Counter("prototide_replayed_steps", "Steps re-learned at start", registry=registry)
        self._model_step = Gauge("prototide_model_step", "The model's step", registry=registry)
        self._model_bytes = Gauge("prototide_model_bytes", "Memory held by the model's arrays", registry=registry)
        self._model_gauges = {key: Gauge(*series, registry=registry) for key, series in _MODEL_GAUGES.items()}
        self._model_counters = {key: Counter(*series, registry=registry) for key, series in _MODEL_COUNTERS.items()}
        self._class_shift = LatestByLabel(
            "prototide_class_shift", "Shift of the classes that moved most in the last step"
        )
        registry.register(self._class_shift)

    def _quality_metrics(self, registry: CollectorRegistry, detectors: Iterable[str]) -> None:
        self._scored = Counter("prototide_prequential_scored", "Rows with a truth", registry=registry)
        self._correct = Counter("prototide_prequential_correct", "Rows predicted as their truth", registry=registry)
        self._accuracy = Gauge(
            "prototide_prequential_accuracy",
            "Share of right predictions over the last drift.window rows",
            registry=registry,
        )
        self._accuracy.set(self._window.accuracy)
        self._drift = Counter("prototide_drift_detected", "Drift alarms", ("detector",), registry=registry)
        self._warning = Gauge("prototide_drift_warning", "1 while a detector warns", ("detector",), registry=registry)
        for detector in detectors:
            self._drift.labels(detector)
            self._warning.labels(detector)

    def _stage_metrics(self, registry: CollectorRegistry) -> None:
        def stage(name: str, help_text: str) -> Histogram:
            return Histogram(f"prototide_{name}_seconds", help_text, buckets=_STAGE_SECONDS, registry=registry)

        self._decode = stage("decode", "Time to decode a step's records")
        self._predict = stage("predict", "Time to predict a step of which nothing is learned")
        self._fit = stage("fit", "Time to predict and learn a step: one scoring serves both")
        self._commit = stage("commit", "Time to deliver a step's records")
        self._step = stage("step", "Time of a whole step")
        self._step_rows = Histogram("prototide_step_rows", "Rows of a step", buckets=_STEP_ROWS, registry=registry)
        self._latency = BulkHistogram(
            "prototide_end_to_end_latency_seconds",
            "Source record's timestamp to its prediction's commit",
            _LATENCY_SECONDS,
        )
        registry.register(self._latency)

    def _checkpoint_metrics(self, registry: CollectorRegistry) -> None:
        self._checkpoint_at = Gauge(
            "prototide_checkpoint_last_success_timestamp_seconds",
            "Unix time of the newest checkpoint",
            registry=registry,
        )
        self._checkpoint_step = Gauge("prototide_checkpoint_step", "Step of the newest checkpoint", registry=registry)
        self._checkpoint_bytes = Gauge("prototide_checkpoint_bytes", "Size of the newest checkpoint", registry=registry)
        self._checkpoint_seconds = Histogram(
            "prototide_checkpoint_seconds", "Time to write a checkpoint", buckets=_CHECKPOINT_SECONDS, registry=registry
        )
        self._checkpoint_failures = Counter(
            "prototide_checkpoint_failures", "Failed attempts to write a checkpoint", registry=registry
        )
        self._checkpoints_rejected = Counter(
            "prototide_checkpoints_rejected", "Checkpoint files skipped at start", registry=registry
        )

    def observe(self, stats: StepStats) -> None:
        """Takes a delivered step."""
        self._steps.inc()
        self._records.inc(stats.records)
        for reason, count in stats.dead_letters.items():
            self._dead_letters.labels(reason).inc(count)
        self._rows_predicted.inc(stats.rows)
        self._rows_learned.inc(stats.rows_learned)
        self._rows_unknown.inc(stats.rows_unknown)
        self._observe_model(stats)
        self._observe_quality(stats.errors)
        self._observe_times(stats)
        self.observe_lag(stats.lag)

    def _observe_model(self, stats: StepStats) -> None:
        self.model_restored(stats.trained, stats.model_bytes)
        for key, gauge in self._model_gauges.items():
            if key in stats.model:
                gauge.set(stats.model[key])
        for key, counter in self._model_counters.items():
            counter.inc(stats.model.get(key, 0))
        moved = sorted(stats.class_shift.items(), key=lambda pair: -pair[1])[: self._top_classes]
        self._class_shift.values = dict(moved)

    def _observe_quality(self, errors: NDArray[np.bool_]) -> None:
        wrong = int(np.count_nonzero(errors))
        self._scored.inc(len(errors))
        self._correct.inc(len(errors) - wrong)
        self._window.update(errors)
        self._accuracy.set(self._window.accuracy)

    def _observe_times(self, stats: StepStats) -> None:
        self._decode.observe(stats.decode_seconds)
        (self._fit if stats.rows_learned else self._predict).observe(stats.fit_seconds)
        self._commit.observe(stats.commit_seconds)
        self._step.observe(stats.step_seconds)
        self._step_rows.observe(stats.rows)
        self._latency.observe(stats.latency_seconds)

    def observe_lag(self, lag: Mapping[tuple[str, int], int]) -> None:
        """Takes (topic, partition) -> records behind the high watermark; also while no step is done."""
        for (topic, partition), records in lag.items():
            self._lag.labels(topic, str(partition)).set(records)

    def model_restored(self, step: int, model_bytes: int) -> None:
        """The model's step and size; called by itself for a model that comes from a checkpoint."""
        self._model_step.set(step)
        self._model_bytes.set(model_bytes)

    def drift_detected(self, detector: str) -> None:
        """A drift alarm of `detector`."""
        self._drift.labels(detector).inc()

    def drift_warning(self, warnings: Mapping[str, bool]) -> None:
        """Which detectors warn now."""
        for detector, warns in warnings.items():
            self._warning.labels(detector).set(warns)

    def checkpoint_written(self, step: int, size_bytes: int, seconds: float, at: float) -> None:
        """A checkpoint of `step` is safe since unix time `at`."""
        self._checkpoint_at.set(at)
        self._checkpoint_step.set(step)
        self._checkpoint_bytes.set(size_bytes)
        self._checkpoint_seconds.observe(seconds)

    def checkpoint_failed(self) -> None:
        """An attempt to write a checkpoint failed."""
        self._checkpoint_failures.inc()

    def checkpoint_rejected(self) -> None:
        """A checkpoint file was skipped at start."""
        self._checkpoints_rejected.inc()

    def dead_letter_storm(self, storm: bool) -> None:
        """Whether too many of the last records are dead letters."""
        self._storm.set(storm)

    def step_replayed(self) -> None:
        """A journalled step was learned again at start."""
        self._replayed.inc()

    def watch_ready(self, is_ready: Callable[[], bool]) -> None:
        """Lets ``prototide_ready`` say what `is_ready` says at each scrape."""
        self._ready.set_function(lambda: float(is_ready()))

    def build_info(self, device: str, engine: str) -> None:
        """Says what is running; torch is named by its installed version, without importing it."""
        try:
            torch = importlib.metadata.version("torch")
        except importlib.metadata.PackageNotFoundError:
            torch = "none"
        version = importlib.metadata.version("prototide")
        self._build.labels(version, platform.python_version(), torch, device, engine).set(1)

    def render(self, accept: str, accept_encoding: str) -> tuple[bytes, dict[str, str]]:
        """The exposition in the format that the scraper accepts, and its HTTP headers."""
        encode, content_type = choose_encoder(accept)
        body, headers = encode(self._registry), {"Content-Type": content_type}
        if gzip_accepted(accept_encoding):
            return gzip.compress(body, compresslevel=1), headers | {"Content-Encoding": "gzip"}
        return body, headers

    def status(self) -> dict[str, str]:
        """The few numbers of the status page."""
        accuracy = self._window.accuracy
        lag = [sample.value for metric in self._lag.collect() for sample in metric.samples]
        return {
            "rows predicted": self._whole("prototide_rows_predicted_total"),
            "rows learned": self._whole("prototide_rows_learned_total"),
            "prequential accuracy": "none yet" if math.isnan(accuracy) else f"{accuracy:.4f}",
            "model's step": self._whole("prototide_model_step"),
            "classes": self._whole("prototide_classes"),
            "prototypes": self._whole("prototide_centroids"),
            "lag, records": f"{sum(lag):,.0f}",
        }

    def _whole(self, series: str) -> str:
        return f"{self._registry.get_sample_value(series) or 0:,.0f}"


class LatestByLabel(Collector):
    """A gauge whose labels are others after each step: its series are made when somebody asks, not at each step."""

    def __init__(self, name: str, help_text: str) -> None:
        self.values: Mapping[str, float] = {}  # replaced as a whole
        self._name = name
        self._help = help_text

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """The gauge as it is now."""
        family = GaugeMetricFamily(self._name, self._help, labels=["label"])
        for label, value in self.values.items():
            family.add_metric([label], value)
        yield family


class BulkHistogram(Collector):
    """A histogram that takes an array at once: a step may hold thousands of records, one microsecond each."""

    def __init__(self, name: str, help_text: str, upper_bounds: Iterable[float]) -> None:
        self._name = name
        self._help = help_text
        self._upper_bounds = np.array([*upper_bounds, np.inf])
        self._counts = np.zeros(len(self._upper_bounds), np.int64)
        self._sum = 0.0
        self._lock = threading.Lock()

    def observe(self, values: NDArray[np.float64]) -> None:
        """Takes values (n,); a value on a bound belongs below it. A clock behind its producer's counts as 0."""
        values = np.maximum(values, 0.0)
        buckets = np.searchsorted(self._upper_bounds, values, side="left")
        with self._lock:
            self._counts += np.bincount(buckets, minlength=len(self._counts))
            self._sum += float(values.sum())

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """The histogram as it is now."""
        with self._lock:
            cumulative, total = np.cumsum(self._counts), self._sum
        names = [*(str(float(bound)) for bound in self._upper_bounds[:-1]), "+Inf"]
        buckets = list(zip(names, cumulative.tolist(), strict=True))
        yield HistogramMetricFamily(self._name, self._help, buckets=buckets, sum_value=total)

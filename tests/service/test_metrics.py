import gzip
import math
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.parser import text_string_to_metric_families

from prototide.service.metrics import BulkHistogram, Metrics, new_registry
from prototide.service.steps import StepStats

# Dashboards, alert rules and users depend on these: name without `_total` -> type, labels.
SPECIFIED: Mapping[str, tuple[str, set[str]]] = {
    **dict.fromkeys(
        (f"rows_{what}" for what in ("predicted", "learned", "unknown")),
        ("counter", set()),
    ),
    "records": ("counter", {"topic"}),
    "dead_letters": ("counter", {"reason"}),
    "steps": ("counter", set()),
    "model_step": ("gauge", set()),
    "shift": ("gauge", set()),
    "shift_max": ("gauge", set()),
    "class_shift": ("gauge", {"label"}),
    "centroids": ("gauge", set()),
    "classes": ("gauge", set()),
    "classes_discovered": ("counter", set()),
    "prototypes_born": ("counter", set()),
    "prototypes_merged": ("counter", set()),
    "dead_letter_storm": ("gauge", set()),
    "prototypes_pruned": ("counter", set()),
    "prequential_scored": ("counter", set()),
    "prequential_correct": ("counter", set()),
    "prequential_accuracy": ("gauge", set()),
    "drift_detected": ("counter", {"detector"}),
    "drift_warning": ("gauge", {"detector"}),
    **dict.fromkeys(
        (f"{stage}_seconds" for stage in ("predict", "fit", "decode", "commit", "step", "checkpoint")),
        ("histogram", set()),
    ),
    "end_to_end_latency_seconds": ("histogram", set()),
    "step_rows": ("histogram", set()),
    "consumer_lag_records": ("gauge", {"topic", "partition"}),
    "checkpoint_last_success_timestamp_seconds": ("gauge", set()),
    "checkpoint_step": ("gauge", set()),
    "checkpoint_bytes": ("gauge", set()),
    "checkpoint_failures": ("counter", set()),
    "checkpoints_rejected": ("counter", set()),
    "replayed_steps": ("counter", set()),
    "ready": ("gauge", set()),
    "model_bytes": ("gauge", set()),
    "build_info": ("gauge", {"version", "python", "torch", "device", "engine"}),
}

STEP = StepStats(
    number=7,
    trained=7,
    records=3,
    dead_letters={"decode": 1},
    rows=10,
    rows_learned=8,
    rows_unknown=2,
    errors=np.array([True, False, False, False]),
    model={
        "shift": 0.25,
        "shift_max": 0.5,
        "active_centroids": 5,
        "classes": 4,
        "new_classes": 1,
        "born": 2,
        "num_merged": 3,
        "pruned": 4,
        "rows": 8,
    },
    class_shift={"a": 0.5, "b": 0.25, "c": 0.125},
    model_bytes=1234,
    decode_seconds=0.001,
    fit_seconds=0.002,
    commit_seconds=0.003,
    step_seconds=0.01,
    latency_seconds=np.array([0.1, 0.2, 400.0]),
    lag={("train", 0): 5, ("train", 1): 6},
)


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


def series(registry: CollectorRegistry) -> dict[str, float]:
    """Every sample by its name and labels, less the noise of buckets and creation times."""
    return {
        f"{sample.name.removeprefix('prototide_')}{''.join(sorted(map(str, sample.labels.values())))}": sample.value
        for family in registry.collect()
        for sample in family.samples
        if not sample.name.endswith(("_bucket", "_created"))
    }


def test_every_series_of_the_specification_exists_with_its_type_and_labels(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, detectors=["adwin"])
    metrics.observe(STEP)
    metrics.build_info("cpu", "numba")
    found = {
        family.name.removeprefix("prototide_"): (
            family.type,
            {label for sample in family.samples for label in sample.labels} - {"le"},
        )
        for family in registry.collect()
    }
    assert found == SPECIFIED


def test_alerts_have_a_zero_to_rise_from(registry: CollectorRegistry) -> None:
    Metrics(registry, detectors=["adwin", "page_hinkley"])
    zeros = series(registry)
    assert zeros["dead_letters_totalpoison"] == zeros["dead_letters_totaldecode"] == 0
    assert zeros["drift_detected_totaladwin"] == zeros["drift_warningpage_hinkley"] == 0
    assert math.isnan(zeros["prequential_accuracy"])


def test_a_step_is_told_in_full(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry)
    metrics.observe(STEP)
    metrics.observe(STEP)
    told = series(registry)
    expected = {
        "rows_predicted_total": 20,
        "rows_learned_total": 16,
        "rows_unknown_total": 4,
        "records_totaltrain": 6,
        "dead_letters_totaldecode": 2,
        "dead_letters_totalschema": 0,
        "steps_total": 2,
        "model_step": 7,
        "shift": 0.25,
        "shift_max": 0.5,
        "centroids": 5,
        "classes": 4,
        "classes_discovered_total": 2,
        "prototypes_born_total": 4,
        "prototypes_merged_total": 6,
        "prototypes_pruned_total": 8,
        "prequential_scored_total": 8,
        "prequential_correct_total": 6,
        "prequential_accuracy": 0.75,
        "model_bytes": 1234,
        "step_rows_sum": 20,
        "fit_seconds_count": 2,
        "predict_seconds_count": 0,
        "end_to_end_latency_seconds_count": 6,
        "consumer_lag_records0train": 5,
        "consumer_lag_records1train": 6,
    }
    assert {name: told[name] for name in expected} == expected
    assert told["end_to_end_latency_seconds_sum"] == pytest.approx(800.6)


def test_a_step_that_learned_nothing_counts_as_predicting(registry: CollectorRegistry) -> None:
    Metrics(registry).observe(replace(STEP, rows_learned=0))
    assert series(registry)["predict_seconds_count"] == 1
    assert series(registry)["fit_seconds_count"] == 0


def test_accuracy_forgets_rows_that_left_the_window(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, window=4)
    metrics.observe(replace(STEP, errors=np.ones(6, np.bool_)))
    metrics.observe(replace(STEP, errors=np.zeros(3, np.bool_)))
    assert series(registry)["prequential_accuracy"] == 0.75
    assert series(registry)["prequential_correct_total"] == 3


def test_only_the_classes_that_moved_most_have_a_series(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, top_classes=2)
    metrics.observe(STEP)
    assert labels_of(registry) == {"a": 0.5, "b": 0.25}
    metrics.observe(replace(STEP, class_shift={"b": 0.1, "d": 0.2, "e": 0.05}))
    assert labels_of(registry) == {"b": 0.1, "d": 0.2}
    metrics.observe(replace(STEP, class_shift={}))
    assert labels_of(registry) == {}


def labels_of(registry: CollectorRegistry) -> dict[str, float]:
    return {
        sample.labels["label"]: sample.value
        for family in registry.collect()
        if family.name == "prototide_class_shift"
        for sample in family.samples
    }


def test_drift_checkpoints_and_readiness_are_told(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry, detectors=["adwin"])
    ready = False
    metrics.watch_ready(lambda: ready)
    metrics.drift_detected("adwin")
    metrics.drift_warning({"adwin": True})
    metrics.checkpoint_written(step=9, size_bytes=100, seconds=0.5, at=1_700_000_000.0)
    metrics.checkpoint_failed()
    metrics.checkpoint_rejected()
    metrics.model_restored(step=9, model_bytes=77)
    told = series(registry)
    expected = {
        "drift_detected_totaladwin": 1,
        "drift_warningadwin": 1,
        "checkpoint_step": 9,
        "checkpoint_bytes": 100,
        "checkpoint_last_success_timestamp_seconds": 1_700_000_000.0,
        "checkpoint_seconds_sum": 0.5,
        "checkpoint_failures_total": 1,
        "checkpoints_rejected_total": 1,
        "model_step": 9,
        "model_bytes": 77,
        "ready": 0,
    }
    assert {name: told[name] for name in expected} == expected
    ready = True
    assert series(registry)["ready"] == 1
    metrics.drift_warning({"adwin": False})
    assert series(registry)["drift_warningadwin"] == 0


def test_the_bulk_histogram_agrees_with_the_librarys() -> None:
    bounds = [0.1, 1.0, 10.0]
    values = np.concatenate([np.random.default_rng().exponential(2.0, 500), bounds])
    bulk, single = BulkHistogram("h", "help", bounds), Histogram("h", "help", buckets=bounds)
    bulk.observe(values[:100])
    bulk.observe(values[100:])
    for value in values:
        single.observe(value)
    [ours], [theirs] = bulk.collect(), single.collect()
    for mine, other in zip(ours.samples, theirs.samples, strict=False):
        assert (mine.name, mine.labels) == (other.name, other.labels)
        assert mine.value == pytest.approx(other.value)


def test_a_source_clock_ahead_of_ours_never_makes_a_sum_fall() -> None:
    bulk = BulkHistogram("h", "help", [1.0])
    bulk.observe(np.array([-5.0]))
    [family] = bulk.collect()
    assert {sample.name: sample.value for sample in family.samples}["h_sum"] == 0


def test_the_exposition_is_negotiated() -> None:
    registry = new_registry()
    metrics = Metrics(registry)
    metrics.observe(STEP)
    body, headers = metrics.render("", "")
    assert headers["Content-Type"].startswith("text/plain")
    families = {family.name for family in text_string_to_metric_families(body.decode())}
    assert {"prototide_rows_predicted", "process_resident_memory_bytes"} <= families
    body, headers = metrics.render("application/openmetrics-text; version=1.0.0", "deflate, gzip")
    assert headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(body).endswith(b"# EOF\n")


def test_the_status_page_gets_its_numbers(registry: CollectorRegistry) -> None:
    metrics = Metrics(registry)
    assert metrics.status()["prequential accuracy"] == "none yet"
    metrics.observe(replace(STEP, rows=1_000_000))
    status = metrics.status()
    assert status["rows predicted"] == "1,000,000"
    assert status["prequential accuracy"] == "0.7500"
    assert status["lag, records"] == "11"

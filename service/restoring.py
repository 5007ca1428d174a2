"""Where a process starts without a journal: the newest checkpoint and the offsets inside it, else a new model.

Also what a start with a journal (`recovery`) shares: the model of a checkpoint, and whether it may be continued here.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from prototide.core import FastKMeansClassifier
from prototide.service import checkpoints
from prototide.service.checkpoints import Checkpoint, Positions
from prototide.service.course import Course
from prototide.service.errors import NEW_MODEL, PersonMustAct, RestartMayHelp
from prototide.service.settings import Settings
from prototide.service.stacking import stack
from prototide.service.stores import Store
from prototide.service.topics import Topology
from prototide.service.wire import decode_batch, encode_batch

log = logging.getLogger(__name__)

WARM_UP_ROWS = 1100  # the learner tidies up every 1,024 rows: that is compiled, too
WARM_UP_FEW_ROWS = 200
WARM_UP_CLASSES = 30
WARM_UP_WEIGHT = 100.0
WARM_UP_TURN_SECONDS = 0.5


class RejectionObserver(Protocol):
    """Who is told; `metrics.Metrics`."""

    def checkpoint_rejected(self) -> None:
        """A file was skipped."""


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A model, where it is in the stream, and in the journal."""

    model: Any
    course: Course
    saved: Positions | None  # those of the checkpoint that it came from


def restore(
    settings: Settings,
    store: Store,
    topology: Topology,
    watermarks: Mapping[int, tuple[int, int]],
    observer: RejectionObserver,
) -> Start:
    """Raises PersonMustAct for a checkpoint that must not be continued; `watermarks`: as `Source.watermarks` gives."""
    topic = settings.topics.train
    checkpoint = next(valid_checkpoints(store, observer), None)
    if checkpoint is None and (unusable := store.names()):
        raise PersonMustAct(
            f"none of the {len(unusable)} checkpoints in {settings.checkpoint.uri} can be used (the log says why)",
            f"mend one, or {NEW_MODEL}",
        )
    if checkpoint is None:
        positions = new_positions(watermarks, settings.start_from)
        log.info("a new model starts at %s: %s", settings.start_from, positions)
        return Start(new_model(settings), Course("", 0, 0, positions, 0), None)
    check_belongs(checkpoint, settings, topology)
    if checkpoint.model_id:
        raise PersonMustAct(
            f"the checkpoint of step {checkpoint.step} in {settings.checkpoint.uri} is of delivery=exactly_once",
            f"set delivery=exactly_once, or {NEW_MODEL}",
        )
    saved = checkpoint.positions[topic]
    check_available(topic, watermarks, saved, saved)
    positions = {partition: saved.get(partition, 0) for partition in watermarks}
    log.info("resumed from the checkpoint of step %d at %s", checkpoint.step, positions)
    course = Course("", checkpoint.step, checkpoint.trained, positions, 0)
    return Start(model_of(settings, checkpoint), course, checkpoint.positions)


def valid_checkpoints(store: Store, observer: RejectionObserver) -> Iterator[Checkpoint]:
    """Those that are whole, newest first; the others are counted and logged."""
    for name in store.names():
        try:
            yield store.read(name)
        except checkpoints.InvalidCheckpointError as why:
            observer.checkpoint_rejected()
            log.error("checkpoint %s is skipped: %s", name, why)


def warm_up(settings: Settings, stopped: Callable[[], bool]) -> None:
    """Compiles the learner, so that a service that says it is ready is: the first time takes a minute.

    In a thread of its own, while this one asks `stopped` now and then: the process stays alive, and need not wait for
    the end to stop. Raises RestartMayHelp when stopped.
    """
    log.info("warming up: the learner is compiled, the first time for one to three minutes")
    failed: list[BaseException] = []
    thread = threading.Thread(target=_compile, args=(settings, failed), name="warm-up", daemon=True)
    began = time.monotonic()
    thread.start()
    while thread.is_alive():
        thread.join(WARM_UP_TURN_SECONDS)
        if thread.is_alive() and stopped():
            raise RestartMayHelp("stopped while the learner was compiled", "start again")
    if failed:
        raise failed[0]
    log.info("warmed up in %.1f s", time.monotonic() - began)


def _compile(settings: Settings, failed: list[BaseException]) -> None:
    try:
        _learn_something(settings)
    except BaseException as error:
        failed.append(error)


def _learn_something(settings: Settings) -> None:
    model = new_model(settings)
    # Each part is compiled when it happens first. Fast forgetting makes masses be rescaled, labels that nothing tells
    # of make prototypes be born, compared and given up, heavy rows make them old enough to lose small entries.
    rescaled = {"update_rows": WARM_UP_ROWS // 4, "half_life": WARM_UP_ROWS // 10}
    model.set_params(**rescaled, k_init=3, k_list=None, max_iters=1)
    random = np.random.default_rng(0)
    X = sparse.random(WARM_UP_ROWS, 64, 0.1, "csr", np.float32, random)
    rows = stack([decode_batch(encode_batch(X, random.integers(WARM_UP_CLASSES, size=WARM_UP_ROWS)))])
    assert rows.labels is not None  # it was given some
    model.fit(rows.X[:WARM_UP_FEW_ROWS], rows.labels[:WARM_UP_FEW_ROWS], verbose=False)
    model.learn(rows.X, rows.labels, np.full(WARM_UP_ROWS, WARM_UP_WEIGHT), top_k=settings.predictions.top_k)
    model.learn(rows.X[:WARM_UP_FEW_ROWS], None, top_k=settings.predictions.top_k)
    model.snapshot().state()  # what a checkpoint collects


def new_model(settings: Settings) -> FastKMeansClassifier:
    """One that has learned nothing; raises PersonMustAct for parameters it refuses."""
    with _refusing():
        return FastKMeansClassifier(**settings.core.classifier_parameters()).to(settings.core.device)


def model_of(settings: Settings, checkpoint: Checkpoint) -> FastKMeansClassifier:
    """The checkpoint's."""
    with _refusing():
        model = FastKMeansClassifier.from_state(checkpoint.arrays, checkpoint.model)
        # Those outside the fingerprint, such as n_threads, may have changed.
        model.set_params(**settings.core.classifier_parameters())
        return model.to(settings.core.device)


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except ValueError as refused:
        raise PersonMustAct(f"the classifier refuses core.*: {refused}", "correct that setting") from None
    except MemoryError as refused:
        raise PersonMustAct(
            f"core.device is too small: {refused}", "make the model smaller, or core.device=cpu"
        ) from None


def check_belongs(checkpoint: Checkpoint, settings: Settings, topology: Topology) -> None:
    """Raises PersonMustAct when the checkpoint is another model's."""
    what = f"the checkpoint of step {checkpoint.step} in {settings.checkpoint.uri}"
    check_settings(what, checkpoint.fingerprint, settings)
    topic = settings.topics.train
    if topic not in checkpoint.positions:
        raise PersonMustAct(
            f"{what} has learned from topic {', '.join(checkpoint.positions)}, topics.train is {topic}",
            f"correct topics.train, or {NEW_MODEL}",
        )
    check_ids(checkpoint.topic_ids, topology.ids)


def check_settings(what: str, fingerprint: Mapping[str, Any], settings: Settings) -> None:
    """Raises PersonMustAct when `what` was made with other settings."""
    differing = checkpoints.differences(fingerprint, settings.fingerprint())
    if differing:
        raise PersonMustAct(
            f"{what} was made with other settings: {'; '.join(differing)}", f"set them as they were, or {NEW_MODEL}"
        )


def check_ids(before: Mapping[str, str], now: Mapping[str, str]) -> None:
    """Raises PersonMustAct when a topic of that name is another one than it was."""
    for topic in before.keys() & now.keys():
        if before[topic] != now[topic]:
            raise PersonMustAct(
                f"topic {topic} was re-created: its id was {before[topic]} and is {now[topic]}", NEW_MODEL
            )


def new_positions(watermarks: Mapping[int, tuple[int, int]], start_from: str) -> dict[int, int]:
    """Where a new model starts: partition -> offset."""
    return {partition: low if start_from == "earliest" else high for partition, (low, high) in watermarks.items()}


def check_available(
    topic: str, watermarks: Mapping[int, tuple[int, int]], first: Mapping[int, int], last: Mapping[int, int]
) -> None:
    """Raises PersonMustAct unless the records from `first` on are still there; live reading begins at `last`.

    A partition that neither knows appeared later and is read from its beginning.
    """
    lost = sorted(last.keys() - watermarks.keys())
    if lost:
        raise PersonMustAct(f"topic {topic} has lost its partitions {lost}", NEW_MODEL)
    for partition, (low, high) in watermarks.items():
        begin, end = first.get(partition, 0), last.get(partition, 0)
        if begin < low:
            raise PersonMustAct(
                f"topic {topic}/{partition} begins at offset {low}, the model goes on at {begin}: "
                "records were deleted before it learned them",
                f"lengthen the topic's retention, and {NEW_MODEL}",
            )
        if end > high:
            raise PersonMustAct(
                f"topic {topic}/{partition} ends at offset {high}, the model goes on at {end}: "
                "it was re-created or lost records",
                NEW_MODEL,
            )

"""Where a process starts: the newest checkpoint and the offsets inside it, else a new model at `start_from`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from scipy import sparse

from prototide.core import FastKMeansClassifier
from prototide.service import checkpoints
from prototide.service.checkpoints import Checkpoint, Positions
from prototide.service.errors import PersonMustAct
from prototide.service.settings import Settings
from prototide.service.stacking import stack
from prototide.service.topics import Topology
from prototide.service.wire import decode_batch, encode_batch

log = logging.getLogger(__name__)

_NEW_MODEL = "move the checkpoints away (or set another checkpoint.uri) to start a new model at `start_from`"


WARM_UP_ROWS = 1100  # the learner tidies up every 1,024 rows: that is compiled, too


class RejectionObserver(Protocol):
    """Who is told; `metrics.Metrics`."""

    def checkpoint_rejected(self) -> None:
        """A file was skipped."""


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """A model after `step` steps, and where it is in the stream."""

    model: Any
    step: int
    positions: Mapping[int, int]  # partition -> offset of the first record that the model has not seen
    saved: Positions | None  # those of the checkpoint that it came from


def restore(
    settings: Settings,
    folder: Path,
    topology: Topology,
    watermarks: Mapping[int, tuple[int, int]],
    observer: RejectionObserver,
) -> Start:
    """Raises PersonMustAct for a checkpoint that must not be continued; `watermarks`: as `Source.watermarks` gives."""
    checkpoint, skipped = checkpoints.newest(folder)
    for path, why in skipped:
        observer.checkpoint_rejected()
        log.error("checkpoint %s is skipped: %s", path, why)
    topic = settings.topics.train
    if checkpoint is None:
        model = _model(settings, None)
        positions = start_positions(topic, watermarks, settings.start_from, None)
        log.info("a new model starts at %s: %s", settings.start_from, positions)
        return Start(model, 0, positions, None)
    check_belongs(checkpoint, settings, topology)
    positions = start_positions(topic, watermarks, settings.start_from, checkpoint.positions[topic])
    model = _model(settings, checkpoint)
    log.info("resumed from the checkpoint of step %d at %s", checkpoint.step, positions)
    return Start(model, checkpoint.step, positions, checkpoint.positions)


def warm_up(settings: Settings) -> None:
    """Compiles the learner, so that a service that says it is ready is: the first time takes a minute."""
    model = _model(settings, None)
    # Each part is compiled when it happens first. Fast forgetting makes masses be rescaled, `fit` gives classes several
    # prototypes, which are compared now and then.
    model.set_params(update_rows=WARM_UP_ROWS // 4, half_life=WARM_UP_ROWS // 10, max_iters=1)
    random = np.random.default_rng(0)
    X = sparse.random(WARM_UP_ROWS, 64, 0.1, "csr", np.float32, random)
    rows = stack([decode_batch(encode_batch(X, random.integers(8, size=WARM_UP_ROWS)))])
    model.fit(rows.X, rows.labels, verbose=False)
    for labels in (rows.labels, rows.labels, None):
        model.learn(rows.X, labels, top_k=settings.predictions.top_k)


def _model(settings: Settings, checkpoint: Checkpoint | None) -> FastKMeansClassifier:
    parameters = settings.core.classifier_parameters()
    try:
        if checkpoint is None:
            return FastKMeansClassifier(**parameters).to(settings.core.device)
        model = FastKMeansClassifier.from_state(checkpoint.arrays, checkpoint.model)
        model.set_params(**parameters)  # those outside the fingerprint, such as n_threads, may have changed
        return model.to(settings.core.device)
    except ValueError as refused:
        raise PersonMustAct(f"the classifier refuses core.*: {refused}", "correct that setting") from None


def check_belongs(checkpoint: Checkpoint, settings: Settings, topology: Topology) -> None:
    """Raises PersonMustAct when the checkpoint is another model's."""
    differing = checkpoints.differences(checkpoint.fingerprint, settings.fingerprint())
    if differing:
        raise PersonMustAct(
            f"the checkpoint of step {checkpoint.step} in {settings.checkpoint.uri} was made with other settings: "
            + "; ".join(differing),
            f"set them as the checkpoint has them, or {_NEW_MODEL}",
        )
    topic = settings.topics.train
    if topic not in checkpoint.positions:
        raise PersonMustAct(
            f"the checkpoint of step {checkpoint.step} has learned from topic {', '.join(checkpoint.positions)}, "
            f"topics.train is {topic}",
            f"correct topics.train, or {_NEW_MODEL}",
        )
    before, now = checkpoint.topic_ids.get(topic), topology.ids.get(topic)
    if before is not None and now is not None and before != now:
        raise PersonMustAct(f"topic {topic} was re-created: its id was {before} and is {now}", _NEW_MODEL)


def start_positions(
    topic: str,
    watermarks: Mapping[int, tuple[int, int]],
    start_from: Literal["earliest", "latest"],
    saved: Mapping[int, int] | None,
) -> dict[int, int]:
    """Partition -> where to read on; `saved` are a checkpoint's positions, None for a new model."""
    if saved is None:
        return {partition: low if start_from == "earliest" else high for partition, (low, high) in watermarks.items()}
    lost = sorted(saved.keys() - watermarks.keys())
    if lost:
        raise PersonMustAct(f"topic {topic} has lost its partitions {lost}", _NEW_MODEL)
    positions = {}
    for partition, (low, high) in watermarks.items():
        position = saved.get(partition, 0)  # a partition that appeared later is read from its beginning
        if position < low:
            raise PersonMustAct(
                f"topic {topic}/{partition} begins at offset {low}, the model goes on at {position}: "
                "records were deleted before it learned them",
                f"lengthen the topic's retention, and {_NEW_MODEL}",
            )
        if position > high:
            raise PersonMustAct(
                f"topic {topic}/{partition} ends at offset {high}, the model goes on at {position}: "
                "it was re-created or lost records",
                _NEW_MODEL,
            )
        positions[partition] = position
    return positions

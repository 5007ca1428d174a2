"""The loop's one step: records in, predicted and learned, delivered.

As data: bytes -> `wire` -> batches -> `stacking` -> one `learn` -> `outputs` -> `broker` -> `StepStats`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, Protocol

import numpy as np

from prototide.service.broker import Output, Record
from prototide.service.checkpoints import Checkpoint, Positions
from prototide.service.errors import PersonMustAct
from prototide.service.gathering import Gatherer, RecordSource, Taken
from prototide.service.outputs import (
    dead_letter_outlet,
    dead_letter_output,
    prediction_outlet,
    prediction_output,
)
from prototide.service.settings import Settings
from prototide.service.stacking import Rows, stack, unknown, wrong
from prototide.service.steps import StepStats
from prototide.service.topics import Topology
from prototide.service.wire import Batch, Predictions, RejectedRecord


class LaggingSource(RecordSource, Protocol):
    """Where records come from, and how many are still to come; `broker.Source`."""

    def lag(self, positions: Mapping[int, int]) -> Mapping[tuple[str, int], int]:
        """Records between the positions and the ends: (topic, partition) -> count."""


class OutputSink(Protocol):
    """Where outputs go; `broker.Sink`."""

    def deliver(self, outputs: Sequence[Output]) -> None:
        """Returns when every output is acknowledged; raises ServiceError when one cannot be."""


class Worker:
    """Holds the model, where it is in the stream, and records that were decoded but wait for the next step."""

    def __init__(
        self,
        settings: Settings,
        topology: Topology,
        model: Any,
        source: LaggingSource,
        sink: OutputSink,
        positions: Mapping[int, int],
        step: int = 0,
    ) -> None:
        """`positions`: partition -> offset of the first record that `model` has not seen, after `step` steps."""
        self.model = model
        self.steps_done = step
        self.positions = dict(positions)
        self._settings = settings
        self._topology = topology
        self._source = source
        self._gatherer = Gatherer(settings, source)
        self._sink = sink
        self._predictions = prediction_outlet(settings, topology)
        self._dead_letters = dead_letter_outlet(settings, topology)

    def step(self) -> StepStats | None:
        """One micro-batch: predicted, learned, delivered; None when no record came.

        The positions move only after the brokers acknowledged every output: after a crash the step is done again.
        """
        # 1. Gather and decode.
        taken, decode_seconds = self._gatherer.gather()
        if not taken:
            return None
        started = time.perf_counter()
        # 2. Predict each row, then learn it.
        batches = [each.decoded for each in taken if isinstance(each.decoded, Batch)]
        rows = stack(batches) if batches else None
        learned = self._learn(rows, taken) if rows is not None else None
        fitted = time.perf_counter()
        # 3. Deliver.
        self._sink.deliver(self._outputs(taken, rows, learned))
        delivered = time.perf_counter()
        # 4. Only now the step has happened.
        self._advance(taken)
        return StepStats(
            step=self.steps_done,
            records=len(taken),
            dead_letters=_reasons(taken),
            rows=0 if rows is None else len(rows),
            rows_learned=0 if learned is None else int(learned.stats.get("rows", 0)),
            rows_unknown=0 if learned is None else unknown(learned.labels),
            errors=wrong([], None) if learned is None or rows is None else wrong(learned.labels, rows.labels),
            model={} if learned is None else learned.stats,
            class_shift={} if learned is None else self._class_shift(),
            model_bytes=self.model.nbytes,
            decode_seconds=decode_seconds,
            fit_seconds=fitted - started,
            commit_seconds=delivered - fitted,
            step_seconds=decode_seconds + delivered - started,
            latency_seconds=_latency(taken),
            lag=self._source.lag(self.positions),
        )

    def snapshot(self) -> Checkpoint:
        """The model as it is between two steps, and what belongs to it; later steps do not change it."""
        arrays, model = self.model.state()
        positions = {self._settings.topics.train: dict(self.positions)}
        return Checkpoint(self.steps_done, positions, arrays, model, self._settings.fingerprint(), self._topology.ids)

    def moved_since(self, positions: Positions | None) -> bool:
        """Whether the worker is elsewhere than at `positions`."""
        return positions is None or positions.get(self._settings.topics.train) != self.positions

    def _learn(self, rows: Rows, taken: Sequence[Taken]) -> Any:
        labels, weights = (rows.labels, rows.weights) if self._settings.learn else (None, None)
        try:
            return self.model.learn(rows.X, labels, weights, top_k=self._settings.predictions.top_k)
        except Exception as failed:
            sources = f"{taken[0].record.source} to {taken[-1].record.source}"
            raise PersonMustAct(
                f"the model failed on the records {sources}: {failed!r}",
                "report it with these records; nothing of them was learned or sent",
            ) from failed

    def _outputs(self, taken: Sequence[Taken], rows: Rows | None, learned: Any) -> list[Output]:
        outputs, number = [], 0
        for record, decoded in ((each.record, each.decoded) for each in taken):
            if isinstance(decoded, RejectedRecord):
                outputs.append(dead_letter_output(record, decoded, self._dead_letters))
                continue
            assert rows is not None  # there is a batch
            predictions = self._cut(record, decoded, learned, slice(rows.bounds[number], rows.bounds[number + 1]))
            number += 1
            outputs.append(self._sized(record, predictions))
        return outputs

    def _cut(self, record: Record, batch: Batch, learned: Any, part: slice) -> Predictions:
        """One record's predictions out of the step's."""
        k = self._settings.predictions.top_k
        return Predictions(
            source=(record.topic, record.partition, record.offset),
            step=self.steps_done,
            labels=learned.labels[part],
            scores=learned.scores[part],
            prototypes=learned.prototypes[part],
            top_k=k or None,
            top_labels=list(chain.from_iterable(learned.top_labels[part])) if k else None,
            top_probs=learned.top_probs[part].ravel() if k else None,
            truth=batch.truth,
            ids=batch.ids,
            ts=record.timestamp_ms if batch.ts is None else batch.ts,
        )

    def _sized(self, record: Record, predictions: Predictions) -> Output:
        try:
            return prediction_output(record, predictions, self._predictions, self._settings)
        except ValueError as failed:
            raise PersonMustAct(f"record {record.source}: {failed}", "start again after that") from None

    def _advance(self, taken: Sequence[Taken]) -> None:
        for each in taken:
            self.positions[each.record.partition] = each.record.offset + 1
        if self._settings.learn:
            self.steps_done += 1

    def _class_shift(self) -> dict[str, float]:
        moved = self.model.moved_classes(self._settings.metrics.top_classes)
        return {str(label): float(shift) for label, shift in reversed(moved)}  # of equal texts the one that moved more


def _reasons(taken: Sequence[Taken]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for each in taken:
        if isinstance(each.decoded, RejectedRecord):
            counts[str(each.decoded.reason)] = counts.get(str(each.decoded.reason), 0) + 1
    return counts


def _latency(taken: Sequence[Taken]) -> np.ndarray[Any, np.dtype[np.float64]]:
    sent = np.array([each.record.timestamp_ms for each in taken if each.record.timestamp_ms], np.float64)
    return np.maximum(0.0, time.time() - sent / 1000)

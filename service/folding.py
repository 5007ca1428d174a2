"""One step of the fold that the model is: its records predicted, then learned; what they become.

Live steps and replayed ones are this same function of the model, the records and how predictions are encoded.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from prototide.service.broker import Output, Record
from prototide.service.errors import PersonMustAct
from prototide.service.gathering import Taken
from prototide.service.journal import Encoding, crc
from prototide.service.outlets import Outlets
from prototide.service.outputs import dead_letter_output, prediction_output
from prototide.service.stacking import Rows, stack
from prototide.service.wire import Batch, Predictions, RejectedRecord


@dataclass(frozen=True, slots=True, eq=False)
class Folded:
    """What a step's records became."""

    taken: Sequence[Taken]
    rows: Rows | None  # None: every record is a dead letter
    learned: Any  # the learner's answer, None without rows
    predictions: list[Output]
    dead_letters: list[Output]
    learn_seconds: float

    @property
    def predictions_crc(self) -> int:
        """CRC-32 of the predictions' values."""
        return crc(output.value for output in self.predictions)

    @property
    def values_crc(self) -> int:
        """CRC-32 of the records' values."""
        return crc(each.record.value for each in self.taken)


def fold(model: Any, taken: Sequence[Taken], steps_before: int, outlets: Outlets, *, learn: bool) -> Folded:
    """Predicts every row of `taken` and, with `learn`, learns it; `model` has learned `steps_before` steps.

    Raises PersonMustAct when the model cannot digest the records, or their predictions fit no record.
    """
    started = time.perf_counter()
    batches = [each.decoded for each in taken if isinstance(each.decoded, Batch)]
    rows = stack(batches) if batches else None
    learned = None if rows is None else _learned(model, rows, taken, outlets.encoding.top_k, learn=learn)
    learn_seconds = time.perf_counter() - started
    predictions, dead_letters, number = [], [], 0
    for record, decoded in ((each.record, each.decoded) for each in taken):
        if isinstance(decoded, RejectedRecord):
            dead_letters.append(dead_letter_output(record, decoded, outlets.dead_letters))
            continue
        assert rows is not None  # there is a batch
        part = slice(rows.bounds[number], rows.bounds[number + 1])
        number += 1
        predictions.append(
            _sized(record, _cut(record, decoded, learned, part, steps_before, outlets.encoding), outlets)
        )
    return Folded(taken, rows, learned, predictions, dead_letters, learn_seconds)


def sources(records: Sequence[Record]) -> str:
    """The records for a person: ``topic/partition/first`` or ``topic/partition/first-last``, partition by partition."""
    first: dict[tuple[str, int], int] = {}
    last: dict[tuple[str, int], int] = {}
    for record in records:
        first.setdefault((record.topic, record.partition), record.offset)
        last[record.topic, record.partition] = record.offset
    return ", ".join(
        f"{topic}/{partition}/{begin}" + (f"-{end}" if (end := last[topic, partition]) != begin else "")
        for (topic, partition), begin in first.items()
    )


def _learned(model: Any, rows: Rows, taken: Sequence[Taken], top_k: int, *, learn: bool) -> Any:
    labels, weights = (rows.labels, rows.weights) if learn else (None, None)
    try:
        return model.learn(rows.X, labels, weights, top_k=top_k)
    except Exception as failed:
        named = sources([each.record for each in taken])
        if len(taken) == 1:
            advice = f"report it with this record, and skip it: `prototide run --skip {named}`"
        else:
            advice = "run it with `--set batch.max_rows=1` to see which record it is, then skip that with --skip"
        raise PersonMustAct(f"the model failed on the records {named}: {failed!r}", advice) from failed


def _cut(record: Record, batch: Batch, learned: Any, part: slice, step: int, encoding: Encoding) -> Predictions:
    """One record's predictions out of the step's."""
    k = encoding.top_k
    return Predictions(
        source=(record.topic, record.partition, record.offset),
        step=step,
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


def _sized(record: Record, predictions: Predictions, outlets: Outlets) -> Output:
    try:
        return prediction_output(record, predictions, outlets.predictions, outlets.encoding.format)
    except ValueError as failed:
        raise PersonMustAct(f"record {record.source}: {failed}", "start again after that") from None

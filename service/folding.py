"""One step of the fold that the model is: its records predicted, then learned; what they become.

Live steps and replayed ones are this same function of the model, the records and how predictions are encoded.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any

from prototide.service.broker import Output, Record
from prototide.service.errors import PersonMustAct
from prototide.service.gathering import Taken
from prototide.service.journal import crc
from prototide.service.outlets import Outlets
from prototide.service.outputs import dead_letter_output, prediction_output, prediction_outputs_that_fit
from prototide.service.stacking import Rows, stack
from prototide.service.wire import Batch, Predictions, RejectedRecord
from prototide.service.wire_predictions import Part, encode_parts


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
    given = [(each.record, each.decoded) for each in taken if isinstance(each.decoded, Batch)]
    rows = stack([batch for _, batch in given]) if given else None
    learned = None if rows is None else _learned(model, rows, taken, outlets.encoding.top_k, learn=learn)
    learn_seconds = time.perf_counter() - started
    return Folded(
        taken=taken,
        rows=rows,
        learned=learned,
        predictions=[] if rows is None else _predicted(given, rows, learned, steps_before, outlets),
        dead_letters=[
            dead_letter_output(each.record, each.decoded, outlets.dead_letters)
            for each in taken
            if isinstance(each.decoded, RejectedRecord)
        ],
        learn_seconds=learn_seconds,
    )


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


def _predicted(
    given: Sequence[tuple[Record, Batch]], rows: Rows, learned: Any, step: int, outlets: Outlets
) -> list[Output]:
    """One output for each record."""
    k, bounds = outlets.encoding.top_k, rows.bounds.tolist()
    whole = Predictions(
        source=("", 0, 0),
        step=step,
        labels=learned.labels,
        scores=learned.scores,
        prototypes=learned.prototypes,
        top_k=k or None,
        top_labels=list(chain.from_iterable(learned.top_labels)) if k else None,
        top_probs=learned.top_probs.ravel() if k else None,
    )
    parts: list[Part] = [
        (
            (record.topic, record.partition, record.offset),
            batch.truth,
            batch.ids,
            record.timestamp_ms if batch.ts is None else batch.ts,
        )
        for record, batch in given
    ]
    outputs: Sequence[Output | None] = [None] * len(parts)
    if outlets.encoding.format == "msgpack":
        values = encode_parts(whole, parts, bounds)
        outputs = prediction_outputs_that_fit((record for record, _ in given), values, outlets.predictions)
    return [
        output or _sized(record, _cut(whole, part, begin, end), outlets)
        for (record, _), output, part, begin, end in zip(given, outputs, parts, bounds[:-1], bounds[1:], strict=True)
    ]


def _cut(whole: Predictions, part: Part, begin: int, end: int) -> Predictions:
    """One record's predictions out of the step's."""
    k = whole.top_k or 0
    source, truth, ids, ts = part
    return replace(
        whole,
        source=source,
        labels=whole.labels[begin:end],
        scores=whole.scores[begin:end],
        prototypes=whole.prototypes[begin:end],
        top_labels=None if whole.top_labels is None else whole.top_labels[k * begin : k * end],
        top_probs=None if whole.top_probs is None else whole.top_probs[k * begin : k * end],
        truth=truth,
        ids=ids,
        ts=ts,
    )


def _sized(record: Record, predictions: Predictions, outlets: Outlets) -> Output:
    try:
        return prediction_output(record, predictions, outlets.predictions, outlets.encoding.format)
    except ValueError as failed:
        raise PersonMustAct(f"record {record.source}: {failed}", "start again after that") from None

"""What must have happened: an uninterrupted run over the journal, written apart from the service's own code.

Shares with the service the wire format, the journal's records and the learner; not how steps are cut, delivered,
replayed or restored.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from confluent_kafka import Message
from scipy import sparse

from prototide.core import FastKMeansClassifier
from prototide.service import checkpoints
from prototide.service.journal import Genesis, Step, decode
from prototide.service.settings import Settings
from prototide.service.wire import Predictions, RejectedRecord, decode_batch, decode_predictions
from tests.support.service import consume_all

Source = tuple[int, int]  # partition, offset
Told = tuple[Any, ...]  # what a prediction says, comparable


@dataclass
class Reference:
    """The uninterrupted run's model, and what it says of every record."""

    model: FastKMeansClassifier
    steps: int
    positions: dict[int, int]
    predictions: dict[Source, Told]
    dead_letters: dict[Source, tuple[str, bytes]]


def run_over_the_journal(settings: Settings) -> Reference:
    """Learns what the newest model's journal says, in its order."""
    entries = [decode(message.value()) for message in consume_all(settings, settings.topics.journal, 1)]
    first = max(number for number, entry in enumerate(entries) if isinstance(entry, Genesis))
    genesis = entries[first]
    assert isinstance(genesis, Genesis)
    train = {
        (message.partition(), message.offset()): message for message in consume_all(settings, settings.topics.train, 0)
    }
    reference = Reference(
        FastKMeansClassifier(**settings.core.classifier_parameters()), 0, dict(genesis.positions), {}, {}
    )
    for entry in entries[first + 1 :]:
        if isinstance(entry, Step):
            _learn(reference, entry, train, settings)
    return reference


def _learn(reference: Reference, step: Step, train: Mapping[Any, Message], settings: Settings) -> None:
    assert step.number == reference.steps + 1, f"step {step.number} follows {reference.steps}"
    batches = []
    for partition, begin, end, _ in step.ranges:
        assert begin == reference.positions[partition], f"step {step.number} leaves records out or repeats some"
        for offset in range(begin, end):
            message = train[partition, offset]
            try:
                batches.append(((partition, offset), decode_batch(message.value(), settings.limits.record())))
            except RejectedRecord as rejected:
                reference.dead_letters[partition, offset] = (str(rejected.reason), message.value() or b"")
        reference.positions[partition] = end
    if batches:
        width = max(batch.X.shape[1] for _, batch in batches)
        X = sparse.vstack([_widened(batch.X, width) for _, batch in batches], "csr")
        y = [label for _, batch in batches for label in batch.labels]
        learned = reference.model.learn(X, y, top_k=settings.predictions.top_k)
        row = 0
        for source, batch in batches:
            rows = slice(row, row + len(batch.labels))
            row = rows.stop
            reference.predictions[source] = (
                reference.steps,
                learned.labels[rows],
                learned.scores[rows].tobytes(),
                learned.prototypes[rows].tobytes(),
                [label for labels in learned.top_labels[rows] for label in labels],
                learned.top_probs[rows].tobytes(),
            )
    reference.steps += 1


def _widened(X: Any, width: int) -> Any:
    return sparse.csr_matrix((X.data, X.indices, X.indptr), shape=(X.shape[0], width))


def check_model(reference: Reference, folder: Path) -> None:
    """The newest checkpoint is the uninterrupted run's model, bit for bit."""
    found, _ = checkpoints.newest(folder)
    assert found is not None, "there is no checkpoint"
    assert found.step == reference.steps, f"the checkpoint is of step {found.step}, the journal of {reference.steps}"
    assert list(found.positions.values()) == [reference.positions], "the checkpoint is elsewhere than the journal"
    arrays, metadata = reference.model.state()
    assert json.dumps(found.model, sort_keys=True) == json.dumps(metadata, sort_keys=True)
    assert found.arrays.keys() == arrays.keys()
    for name, array in arrays.items():
        assert found.arrays[name].dtype == array.dtype, name
        assert found.arrays[name].tobytes() == array.tobytes(), f"{name} differs from the uninterrupted run"


def check_outputs(reference: Reference, predictions: Sequence[Message], dead_letters: Sequence[Message]) -> None:
    """Exactly one output for each record, equal to the reference's, in the order of each partition."""
    told: dict[Source, Told] = {}
    order: defaultdict[tuple[Any, int], list[int]] = defaultdict(list)
    for message in predictions:
        each = decode_predictions(message.value())
        source = each.source[1:]
        assert source not in told, f"{source} is predicted twice"
        told[source] = _told(each)
        order[message.partition(), source[0]].append(source[1])
    missing = reference.predictions.keys() - told.keys()
    assert not missing, f"{len(missing)} predictions are lost, such as {min(missing)}"
    assert told.keys() == reference.predictions.keys(), "there are predictions that the journal does not know"
    for source, expected in reference.predictions.items():
        assert told[source] == expected, f"the prediction of {source} differs from the uninterrupted run"
    for offsets in order.values():
        assert offsets == sorted(offsets), "the order of a partition is not kept"
    _check_dead_letters(reference, dead_letters)


def _check_dead_letters(reference: Reference, dead_letters: Sequence[Message]) -> None:
    letters = []
    for message in dead_letters:
        headers = dict(message.headers() or ())
        source = (int(headers["dlq.partition"]), int(headers["dlq.offset"]))
        letters.append((source, (headers["dlq.reason"].decode(), message.value() or b"")))
    doubled = [source for source, count in Counter(source for source, _ in letters).items() if count > 1]
    assert not doubled, f"dead letters are doubled, such as {doubled[0]}"
    assert dict(letters) == reference.dead_letters


def _told(each: Predictions) -> Told:
    assert each.top_probs is not None
    return (
        each.step,
        each.labels,
        each.scores.tobytes(),
        each.prototypes.tobytes(),
        each.top_labels,
        each.top_probs.tobytes(),
    )

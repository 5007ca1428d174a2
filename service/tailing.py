"""Reading a topic of outputs for a person: committed records only, from its end or its beginning, in no group."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Any, NamedTuple

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, Message, TopicPartition

from prototide.service.clients import ClientErrors, admin_client, consumer_properties, new_client
from prototide.service.errors import PersonMustAct
from prototide.service.settings import Settings
from prototide.service.topics import wait_for_brokers
from prototide.service.wire import RejectedRecord, decode_predictions

SLICE_SECONDS = 0.2  # longest wait inside the client: signals are handled between slices
RECORDS_AT_ONCE = 50


class Kind(StrEnum):
    """What a topic's records are."""

    PREDICTIONS = "predictions"
    DEAD_LETTERS = "dead-letters"


class Told(NamedTuple):
    """What records say, one JSON-able row each; and lines about records that could not be read."""

    rows: list[dict[str, Any]]
    unreadable: list[str]


def kind_of(topic: str, settings: Settings) -> Kind:
    """What the topic holds by the settings' names; raises PersonMustAct for another."""
    kinds = {settings.topics.predictions: Kind.PREDICTIONS, settings.topics.dead_letters: Kind.DEAD_LETTERS}
    if topic not in kinds:
        raise PersonMustAct(
            f"topic {topic} is neither topics.predictions nor topics.dead_letters ({', '.join(kinds)})",
            "say what it holds: --kind predictions or --kind dead-letters",
        )
    return kinds[topic]


class Reader:
    """Every partition of one topic, as it is when the reader starts."""

    def __init__(
        self, settings: Settings, topic: str, *, from_beginning: bool, until_end: bool, stopped: Callable[[], bool]
    ) -> None:
        """Raises RestartMayHelp when no broker answers, PersonMustAct when the topic is missing."""
        self._errors = ClientErrors()
        self._stopped = stopped
        found = wait_for_brokers(settings, admin_client(settings, self._errors), self._errors, stopped).topics
        if topic not in found:
            raise PersonMustAct(
                f"there is no topic {topic} at {settings.kafka.bootstrap_servers}",
                f"correct the name; there are: {', '.join(sorted(found)) or 'none'}",
            )
        self._until_end = until_end
        self._unfinished = set(found[topic].partitions)
        own = {"group.id": f"{settings.kafka.group_id}.tail", "auto.offset.reset": "earliest"}
        self._consumer: Consumer = new_client(Consumer, consumer_properties(settings) | own, self._errors)
        start = OFFSET_BEGINNING if from_beginning else OFFSET_END
        self._consumer.assign([TopicPartition(topic, partition, start) for partition in self._unfinished])

    def __iter__(self) -> Iterator[list[Message]]:
        """Records as they come, an empty list when none came for a while; ends when asked to, or at the topic's end."""
        while not self._stopped() and (self._unfinished or not self._until_end):
            records = []
            for message in self._consumer.consume(RECORDS_AT_ONCE, SLICE_SECONDS):
                error = message.error()
                if error is None:
                    records.append(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._unfinished.discard(message.partition())
                else:
                    self._errors(error)
            self._errors.raise_any()
            yield records

    def close(self) -> None:
        """Leaves; the destructor would not."""
        self._consumer.close()


def told(messages: Sequence[Message], kind: Kind) -> Told:
    """What the records say."""
    rows: list[dict[str, Any]] = []
    unreadable = []
    for message in messages:
        if kind is Kind.DEAD_LETTERS:
            rows.append(dead_letter_row(message))
            continue
        try:
            rows += prediction_rows(message.value())
        except RejectedRecord as error:
            where = f"{message.topic()}/{message.partition()}/{message.offset()}"
            unreadable.append(f"{where} is no prediction record: {error}")
    return Told(rows, unreadable)


def prediction_rows(value: bytes | None) -> Iterator[dict[str, Any]]:
    """One row for each row predicted; raises RejectedRecord for a record that holds no predictions."""
    record = decode_predictions(value)
    source = "/".join(map(str, record.source))
    k = record.top_k or 0
    for i, label in enumerate(record.labels):
        row: dict[str, Any] = {"source": source, "row": i, "step": record.step}
        if record.ids is not None:
            row["id"] = record.ids[i]
        row |= {"label": label, "score": float(record.scores[i]), "prototype": int(record.prototypes[i])}
        if record.truth is not None:
            row["truth"] = record.truth[i]
        if record.top_labels is not None and record.top_probs is not None:
            best = slice(i * k, (i + 1) * k)
            pairs = zip(record.top_labels[best], record.top_probs[best].tolist(), strict=True)
            row["top"] = [[label, prob] for label, prob in pairs if label is not None]
        if record.ts is not None:
            row["ts"] = record.ts
        yield row


def dead_letter_row(message: Message) -> dict[str, Any]:
    """What a dead letter's headers say; never its payload."""
    # The service's own headers stand behind the original's: of equal names the last counts.
    headers: Any = message.headers() or ()
    texts = {name: (value or b"").decode(errors="replace") for name, value in headers}
    source = [texts.get(f"dlq.{part}", "?") for part in ("topic", "partition", "offset")]
    row: dict[str, Any] = {
        "record": f"{message.topic()}/{message.partition()}/{message.offset()}",
        "source": "/".join(source),
        "reason": texts.get("dlq.reason"),
        "detail": texts.get("dlq.detail"),
        "timestamp": _int(texts.get("dlq.timestamp")),
        "bytes": _int(texts.get("dlq.value-bytes")) or len(message.value() or b""),
        "service_version": texts.get("dlq.service-version"),
    }
    return row | ({"sha256": texts["dlq.value-sha256"]} if "dlq.value-sha256" in texts else {})


def _int(text: str | None) -> int | None:
    return int(text) if text is not None and text.isdecimal() else None

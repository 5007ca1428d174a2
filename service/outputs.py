"""What a train record becomes: a prediction record, or a dead letter. Pure functions of the record and the settings."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version

from prototide.service.broker import Headers, Output, Record
from prototide.service.wire import (
    SHORTENED_HEADER,
    SOURCE_HEADER,
    VERSION_HEADER,
    Format,
    Predictions,
    RejectedRecord,
    encode_predictions_within,
)

SERVICE_VERSION = version("prototide")
DLQ_PREFIX = "dlq."  # of the headers that say why
FRAMING_BYTES = 512  # of a record batch with one record, beside key, value and headers

AMPLE_HEADER_BYTES = 1024  # more than those of a prediction: Kafka's topics have names of at most 249 characters


@dataclass(frozen=True, slots=True)
class Outlet:
    """A topic of outputs: where records of a source partition go, and how large they may be."""

    topic: str
    partitions: int
    max_bytes: int

    def partition_for(self, record: Record) -> int:
        """Keeps the order of each source partition."""
        return record.partition % self.partitions

    def room(self, key: bytes | None, headers: Headers) -> int:
        """Bytes left for the value."""
        return self.max_bytes - FRAMING_BYTES - len(key or b"") - sum(_header_bytes(*header) for header in headers)


def prediction_outputs_that_fit(
    records: Iterable[Record], values: Iterable[bytes], outlet: Outlet
) -> list[Output | None]:
    """The records for encoded predictions that surely fit whole, without counting every byte; None: it may not."""
    room = outlet.max_bytes - AMPLE_HEADER_BYTES - FRAMING_BYTES
    named = (VERSION_HEADER, SERVICE_VERSION)
    return [
        Output(outlet.topic, outlet.partition_for(record), record.key, value, (named, (SOURCE_HEADER, record.source)))
        if len(value) + len(record.key or b"") <= room
        else None
        for record, value in zip(records, values, strict=True)
    ]


def prediction_output(record: Record, predictions: Predictions, outlet: Outlet, encoding: Format) -> Output:
    """The record for `predictions`; what does not fit is left out, the key last.

    Raises ValueError when the rest does not fit either.
    """
    headers = [(VERSION_HEADER, SERVICE_VERSION), (SOURCE_HEADER, record.source)]
    room = outlet.room(record.key, [*headers, (SHORTENED_HEADER, "1")])
    key = record.key
    try:
        value, shortened = encode_predictions_within(predictions, room, encoding)
    except ValueError:
        if not key:
            raise
        room, key = room + len(key), None
        value, shortened = encode_predictions_within(predictions, room, encoding)[0], True
    if shortened:
        headers.append((SHORTENED_HEADER, "1"))
    return Output(outlet.topic, outlet.partition_for(record), key, value, headers)


def dead_letter_output(record: Record, rejected: RejectedRecord, outlet: Outlet) -> Output:
    """The original with the reason in its headers; its digest where it is too large to forward."""
    value = record.value or b""
    why: list[tuple[str, bytes | str | None]] = [
        ("dlq.reason", str(rejected.reason)),
        ("dlq.detail", rejected.detail),
        ("dlq.topic", record.topic),
        ("dlq.partition", str(record.partition)),
        ("dlq.offset", str(record.offset)),
        ("dlq.timestamp", str(record.timestamp_ms)),
        ("dlq.service-version", SERVICE_VERSION),
    ]
    kept = [header for header in record.headers if not header[0].startswith(DLQ_PREFIX)]  # of a letter sent once more
    headers = [*kept, *why]
    partition = outlet.partition_for(record)
    if len(value) <= outlet.room(record.key, headers):
        return Output(outlet.topic, partition, record.key, value, headers)
    why += [("dlq.value-sha256", hashlib.sha256(value).hexdigest()), ("dlq.value-bytes", str(len(value)))]
    headers = [*kept, *why]
    if outlet.room(record.key, headers) >= 0:
        return Output(outlet.topic, partition, record.key, b"", headers)
    return Output(outlet.topic, partition, None, b"", why)  # key or headers alone are too large


def _header_bytes(name: str, value: bytes | str | None) -> int:
    return len(name.encode()) + len(value.encode() if isinstance(value, str) else value or b"") + 16

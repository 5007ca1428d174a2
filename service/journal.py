"""The journal's records: what the service did, step by step, and so what its model is.

The model after step s is a function of the settings, the train topic and the journal up to s::

    Genesis                model id, settings, topic ids, start positions; before the first step, and at `run --fresh`
    Step                   which records were predicted and learned, in which order; checksums of them and the answers
    Heartbeat              an idle owner is alive

Each is one msgpack map. A step's record is committed in the transaction of the step's predictions and dead letters.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgpack

from prototide.service.wire import Format

VERSION = 1


class UndecodableJournalError(ValueError):
    """The bytes are no journal record of this version; the message says why."""


class Range(NamedTuple):
    """The records of one partition in a step: offsets `begin` to `end` (exclusive), gaps and all."""

    partition: int
    begin: int
    end: int
    records: int


class Encoding(NamedTuple):
    """How the step's predictions were encoded: a replay encodes the same bytes whatever the settings are now."""

    format: Format
    top_k: int
    max_bytes: int


@dataclass(frozen=True, slots=True)
class Genesis:
    """A new model: everything before it in the journal belongs to earlier ones."""

    model: str
    instance: str
    time_ms: int
    topic: str  # train
    positions: Mapping[int, int]  # partition -> offset of the first record to learn
    fingerprint: Mapping[str, Any]
    topic_ids: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Step:
    """One micro-batch: its ranges, in the order of their rows."""

    model: str
    instance: str
    time_ms: int
    number: int  # from 1, without gaps
    learned: bool  # False: predicted only (`learn=false`)
    ranges: tuple[Range, ...]
    values_crc: int  # CRC-32 of the records' values, one after the other
    predictions_crc: int  # CRC-32 of the encoded predictions, one after the other
    dead_letters: int
    skipped: tuple[tuple[int, int], ...]  # (partition, offset) of records that a person had skipped
    encoding: Encoding


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """`instance` owns the journal and had nothing to do."""

    instance: str
    time_ms: int


Entry = Genesis | Step | Heartbeat


def encode(entry: Entry) -> bytes:
    """One record's value."""
    return bytes(msgpack.packb({"v": VERSION, **_FIELDS[type(entry)](entry)}))


def decode(value: bytes | None) -> Entry:
    """Reads one record's value; raises UndecodableJournalError for anything else."""
    try:
        fields = msgpack.unpackb(value or b"", strict_map_key=False)
        if fields["v"] != VERSION:
            raise UndecodableJournalError(f"it has version {fields['v']!r}, this program reads {VERSION}")
        match fields["kind"]:
            case "genesis":
                return _genesis(fields)
            case "step":
                return _step(fields)
            case "heartbeat":
                return Heartbeat(fields["instance"], fields["time"])
    except UndecodableJournalError:
        raise
    except Exception as failed:  # msgpack raises many kinds
        raise UndecodableJournalError(f"{type(failed).__name__}: {failed}") from None
    raise UndecodableJournalError(f"it is of the unknown kind {fields['kind']!r}")


def crc(values: Iterable[bytes | None]) -> int:
    """CRC-32 of the values, one after the other."""
    checksum = 0
    for value in values:
        checksum = zlib.crc32(value or b"", checksum)
    return checksum


def _genesis_fields(genesis: Genesis) -> dict[str, Any]:
    return {
        "kind": "genesis",
        "model": genesis.model,
        "instance": genesis.instance,
        "time": genesis.time_ms,
        "topic": genesis.topic,
        "positions": sorted(genesis.positions.items()),
        "fingerprint": genesis.fingerprint,
        "topic_ids": genesis.topic_ids,
    }


def _genesis(fields: dict[str, Any]) -> Genesis:
    return Genesis(
        model=fields["model"],
        instance=fields["instance"],
        time_ms=fields["time"],
        topic=fields["topic"],
        positions={int(partition): int(offset) for partition, offset in fields["positions"]},
        fingerprint=dict(fields["fingerprint"]),
        topic_ids=dict(fields["topic_ids"]),
    )


def _step_fields(step: Step) -> dict[str, Any]:
    return {
        "kind": "step",
        "model": step.model,
        "instance": step.instance,
        "time": step.time_ms,
        "number": step.number,
        "learned": step.learned,
        "ranges": step.ranges,
        "values_crc": step.values_crc,
        "predictions_crc": step.predictions_crc,
        "dead_letters": step.dead_letters,
        "skipped": step.skipped,
        "encoding": step.encoding,
    }


def _step(fields: dict[str, Any]) -> Step:
    return Step(
        model=fields["model"],
        instance=fields["instance"],
        time_ms=fields["time"],
        number=int(fields["number"]),
        learned=bool(fields["learned"]),
        ranges=tuple(Range(*map(int, each)) for each in fields["ranges"]),
        values_crc=fields["values_crc"],
        predictions_crc=fields["predictions_crc"],
        dead_letters=fields["dead_letters"],
        skipped=tuple((int(partition), int(offset)) for partition, offset in fields["skipped"]),
        encoding=Encoding(*fields["encoding"]),
    )


_FIELDS: Mapping[type, Any] = {
    Genesis: _genesis_fields,
    Step: _step_fields,
    Heartbeat: lambda beat: {"kind": "heartbeat", "instance": beat.instance, "time": beat.time_ms},
}

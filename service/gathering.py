"""Records into micro-batches: read, decoded in groups, closed by rows, by age or by bytes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Sequence
from operator import attrgetter
from typing import NamedTuple, Protocol

from prototide.service.broker import Record
from prototide.service.errors import PersonMustAct
from prototide.service.settings import Settings
from prototide.service.wire import Batch, DeadLetterReason, Limits, RejectedRecord, decode_batch
from prototide.service.wire_batches import decode_batches

IDLE_SECONDS = 0.2  # longest wait for a first record: signals are handled between steps
LATE_SECONDS = 0.001  # between two looks whether a step may close; the client waits whole milliseconds, or spins
MAX_STEP_BYTES = 64 * 2**20  # bounds a step's memory whatever its records hold
MAX_STEP_RECORDS = 10_000
MANY, MANY_BYTES = 64, 2**16  # of records that wait to be decoded: fewer and smaller ones are cheaper together

_PLACE = attrgetter("record.partition", "record.offset")


class RecordSource(Protocol):
    """Where records come from; `broker.Source`."""

    def poll(self, timeout: float) -> Record | None:
        """The next record, or None when none came within `timeout` seconds."""

    def consume(self, most: int, timeout: float) -> list[Record]:
        """Up to `most` records within `timeout` seconds."""


class Taken(NamedTuple):
    """A record, decoded: a batch, or why there is none."""

    record: Record
    decoded: Batch | RejectedRecord

    @property
    def skipped(self) -> bool:
        """Whether a person had it skipped."""
        return isinstance(self.decoded, RejectedRecord) and self.decoded.reason is DeadLetterReason.POISON

    @property
    def rows(self) -> int:
        """How many rows it brings."""
        return self.decoded.shape[0] if isinstance(self.decoded, Batch) else 0

    @property
    def size(self) -> int:
        """Bytes of its value."""
        return len(self.record.value or b"")


class Gatherer:
    """Holds the records that were read but wait for the next step, because they would overfill this one."""

    def __init__(self, settings: Settings, source: RecordSource, skip: Collection[tuple[int, int]] = ()) -> None:
        """`skip`: (partition, offset) of records that a person wants as dead letters."""
        self._max_rows = settings.batch.max_rows
        self._max_wait_seconds = settings.batch.max_wait_ms / 1000
        self._limits = settings.limits.record()
        self._source = source
        self._skip = frozenset(skip)
        self._read: list[Record] = []  # not decoded yet
        self._pending: deque[Taken] = deque()
        self._rows = self._size = 0  # of the pending ones
        self._decode_seconds = 0.0
        self._looked_at = time.monotonic()  # no waiting record had come before

    def gather(self, may_close: Callable[[], bool] = lambda: True) -> tuple[list[Taken], float]:
        """A step's records ordered by partition, then offset, and the seconds that decoding took; none came: empty.

        The step closes at `batch.max_rows` rows (a larger record is a step of its own) or at that age. Then
        `may_close` is asked: a step that would have to wait for the one before it takes what comes meanwhile instead.
        A record that is there at once may have come just after the last step was closed.
        """
        if not self._pending:
            first = self._source.poll(0.0)
            if first is None:
                first = self._source.poll(IDLE_SECONDS)
                self._looked_at = time.monotonic()
            if first is None:
                return [], 0.0
            self._read.append(first)
            self._decode()  # its rows say how many records to ask for
        closes = self._looked_at + self._max_wait_seconds
        latest = max(closes, time.monotonic()) + IDLE_SECONDS
        while (wanted := self._wanted()) > 0:
            now = time.monotonic()
            patience = 0.0 if now >= closes and may_close() else max(closes - now, LATE_SECONDS)
            self._read += self._source.consume(wanted, patience)
            if len(self._read) >= MANY or sum(len(record.value or b"") for record in self._read) >= MANY_BYTES:
                self._decode()
            if now >= closes and (may_close() or now >= latest):
                break
        self._decode()
        self._looked_at = time.monotonic()
        decode_seconds, self._decode_seconds = self._decode_seconds, 0.0
        return sorted(self._close(), key=_PLACE), decode_seconds

    def _wanted(self) -> int:
        """How many more records to ask for; 0 when the pending ones fill a step."""
        missing = self._max_rows - self._rows - len(self._read)
        if missing <= 0 or self._size >= MAX_STEP_BYTES or len(self._pending) >= MAX_STEP_RECORDS:
            return 0
        rows_each = max(1, self._pending[-1].rows)
        return max(1, min(missing // rows_each, MAX_STEP_RECORDS))

    def _close(self) -> list[Taken]:
        if self._rows <= self._max_rows and self._size <= MAX_STEP_BYTES and len(self._pending) <= MAX_STEP_RECORDS:
            everything, self._rows, self._size = list(self._pending), 0, 0
            self._pending.clear()
            return everything
        step: list[Taken] = []
        rows = size = 0
        while self._pending:
            rows += self._pending[0].rows
            size += self._pending[0].size
            if step and (rows > self._max_rows or size > MAX_STEP_BYTES or len(step) >= MAX_STEP_RECORDS):
                break
            step.append(self._pending.popleft())
            self._rows -= step[-1].rows
            self._size -= step[-1].size
        return step

    def _decode(self) -> None:
        started = time.perf_counter()
        records, self._read = self._read, []
        for taken in take(records, self._limits, self._skip):
            self._pending.append(taken)
            self._rows += taken.rows
            self._size += taken.size
        self._decode_seconds += time.perf_counter() - started


def take(records: Sequence[Record], limits: Limits, skip: Collection[tuple[int, int]]) -> list[Taken]:
    """The records, decoded; a pure function of their bytes and the limits, but for those in `skip`."""
    if not skip:
        return list(map(Taken, records, _decoded(records, limits)))
    skipped = [(record.partition, record.offset) in skip for record in records]
    decoded = iter(
        _decoded([record for record, left_out in zip(records, skipped, strict=True) if not left_out], limits)
    )
    return [
        Taken(record, _poison() if left_out else next(decoded))
        for record, left_out in zip(records, skipped, strict=True)
    ]


def _decoded(records: Sequence[Record], limits: Limits) -> list[Batch | RejectedRecord]:
    try:
        return decode_batches([record.value for record in records], limits)
    except Exception:
        return [_decoded_alone(record, limits) for record in records]  # names the one that cannot be decoded


def _poison() -> RejectedRecord:
    return RejectedRecord(DeadLetterReason.POISON, "a person had it skipped: prototide run --skip")


def _decoded_alone(record: Record, limits: Limits) -> Batch | RejectedRecord:
    try:
        return decode_batch(record.value, limits)
    except RejectedRecord as rejected:
        return rejected.with_traceback(None)
    except Exception as failed:
        raise PersonMustAct(
            f"record {record.source} cannot be decoded: {failed!r}",
            f"report it with this record, and skip it: `prototide run --skip {record.source}`",
        ) from failed

from __future__ import annotations

from collections.abc import Sequence

import pytest

from prototide.service import gathering
from prototide.service.broker import Record
from prototide.service.errors import PersonMustAct
from prototide.service.gathering import Gatherer
from prototide.service.settings import Settings, load
from prototide.service.wire import Batch, Limits, RejectedRecord
from tests.support.stream import MemoryStream, batch


def settings(*overrides: str) -> Settings:
    return load(None, list(overrides), {})


def offsets(stream: MemoryStream, gatherer: Gatherer) -> list[tuple[int, int]]:
    taken, _ = gatherer.gather()
    return [(each.record.partition, each.record.offset) for each in taken]


def test_no_record_is_no_step() -> None:
    assert Gatherer(settings(), MemoryStream()).gather() == ([], 0.0)


def test_a_step_closes_at_the_rows_and_what_overfills_it_comes_next() -> None:
    stream = MemoryStream()
    for _ in range(5):
        stream.send(batch(["a", "b"]))
    gatherer = Gatherer(settings("batch.max_rows=5"), stream)
    assert [offsets(stream, gatherer) for _ in range(4)] == [[(0, 0), (0, 1)], [(0, 2), (0, 3)], [(0, 4)], []]


def test_a_record_above_the_rows_is_a_step_of_its_own() -> None:
    stream = MemoryStream()
    for labels in (["a"], ["a"] * 9, ["a"]):
        stream.send(batch(labels))
    gatherer = Gatherer(settings("batch.max_rows=4"), stream)
    assert [offsets(stream, gatherer) for _ in range(3)] == [[(0, 0)], [(0, 1)], [(0, 2)]]


def test_a_step_is_ordered_by_partition_and_offset() -> None:
    stream = MemoryStream()
    for partition in (2, 0, 1, 0, 2):
        stream.send(batch(["a"]), partition)
    assert offsets(stream, Gatherer(settings(), stream)) == [(0, 0), (0, 1), (1, 0), (2, 0), (2, 1)]


def test_a_step_closes_at_its_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = MemoryStream()
    for _ in range(4):
        stream.send(batch(["a"]))
    monkeypatch.setattr(gathering, "MAX_STEP_BYTES", 2 * len(batch(["a"])))
    gatherer = Gatherer(settings(), stream)
    assert [offsets(stream, gatherer) for _ in range(3)] == [[(0, 0), (0, 1)], [(0, 2), (0, 3)], []]


def test_a_step_closes_at_its_records(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = MemoryStream()
    for _ in range(3):
        stream.send(b"bad")  # no rows: only the count of records closes it
    monkeypatch.setattr(gathering, "MAX_STEP_RECORDS", 2)
    gatherer = Gatherer(settings(), stream)
    assert [offsets(stream, gatherer) for _ in range(2)] == [[(0, 0), (0, 1)], [(0, 2)]]


def test_what_is_there_is_taken_even_when_a_step_may_not_wait() -> None:
    stream = MemoryStream()
    for _ in range(3):
        stream.send(batch(["a"]))
    assert len(offsets(stream, Gatherer(settings("batch.max_wait_ms=0"), stream))) == 3


def test_large_records_are_asked_for_few_at_a_time() -> None:
    stream = MemoryStream()
    for _ in range(3):
        stream.send(batch(["a"] * 100))
    Gatherer(settings("batch.max_rows=1000"), stream).gather()
    assert stream.asked[0] == 9


class Trickle(MemoryStream):
    """Gives one record at a time."""

    def consume(self, most: int, timeout: float) -> list[Record]:
        return super().consume(min(most, 1), timeout)


@pytest.fixture
def decoded_together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many records were decoded, each time."""
    found: list[int] = []
    decode = gathering.decode_batches

    def counted(payloads: Sequence[bytes | None], limits: Limits) -> list[Batch | RejectedRecord]:
        found.extend([len(payloads)] if payloads else [])
        return decode(payloads, limits)

    monkeypatch.setattr(gathering, "decode_batches", counted)
    return found


def test_small_records_that_trickle_in_are_decoded_together(decoded_together: list[int]) -> None:
    stream = Trickle()
    for _ in range(9):
        stream.send(batch(["a"]))
    taken, _ = Gatherer(settings("batch.max_rows=9"), stream).gather()
    assert len(taken) == 9
    assert decoded_together == [1, 8]


def test_records_worth_decoding_alone_are_decoded_while_others_come(decoded_together: list[int]) -> None:
    stream = Trickle()
    for _ in range(3):
        stream.send(batch(["a"] * 10_000))
    Gatherer(settings("batch.max_rows=30000"), stream).gather()
    assert decoded_together == [1, 1, 1]


def test_rows_that_are_not_decoded_yet_overfill_no_step() -> None:
    stream = Trickle()
    for rows in (1, 3, 1, 1):
        stream.send(batch(["a"] * rows))
    gatherer = Gatherer(settings("batch.max_rows=4"), stream)
    assert [offsets(stream, gatherer) for _ in range(3)] == [[(0, 0), (0, 1)], [(0, 2), (0, 3)], []]


def test_a_bad_record_stays_among_the_good_ones() -> None:
    stream = MemoryStream()
    for value in (batch(["a"]), b"\xc1", None, batch(["b"])):
        stream.send(value)
    taken, seconds = Gatherer(settings(), stream).gather()
    assert [type(each.decoded) for each in taken] == [Batch, RejectedRecord, RejectedRecord, Batch]
    assert seconds > 0


def test_a_step_that_would_wait_for_the_one_before_it_takes_what_comes_meanwhile() -> None:
    stream = MemoryStream()
    stream.send(batch(["a"]))
    answers = iter([False, False, False, True, True])

    def may_close() -> bool:
        stream.send(batch(["b"]))
        return next(answers)

    taken, _ = Gatherer(settings("batch.max_wait_ms=0"), stream).gather(may_close)
    assert len(taken) > 2


def test_a_record_that_waited_while_the_last_step_was_learned_is_that_old(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, patience = [100.0], list[float]()

    class Stream(MemoryStream):
        def poll(self, timeout: float) -> Record | None:
            clock[0] += timeout if not self.waiting else 0.0
            return super().poll(timeout)

        def consume(self, most: int, timeout: float) -> list[Record]:
            patience.append(timeout)
            clock[0] += timeout
            return super().consume(most, timeout)

    monkeypatch.setattr(gathering.time, "monotonic", lambda: clock[0])
    stream = Stream()
    gatherer = Gatherer(settings("batch.max_wait_ms=1000"), stream)
    for learning_seconds in (0.0, 0.5, 5.0):
        clock[0] += learning_seconds
        stream.send(batch(["a"]))
        patience.clear()
        assert len(gatherer.gather()[0]) == 1
        assert patience[0] == max(0.0, 1.0 - learning_seconds)
    assert gatherer.gather() == ([], 0.0)


def test_a_full_step_closes_whatever_waits() -> None:
    stream = MemoryStream()
    for _ in range(5):
        stream.send(batch(["a"]))
    taken, _ = Gatherer(settings("batch.max_rows=2"), stream).gather(lambda: False)
    assert len(taken) == 2


def test_a_step_does_not_stay_open_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "IDLE_SECONDS", 0.01)
    stream = MemoryStream()
    stream.send(batch(["a"]))
    taken, _ = Gatherer(settings(), stream).gather(lambda: False)
    assert len(taken) == 1


def test_a_record_that_is_skipped_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a fault of the decoder")

    monkeypatch.setattr(gathering, "decode_batches", fail)
    monkeypatch.setattr(gathering, "decode_batch", fail)
    stream = MemoryStream()
    stream.send(batch(["a"]))
    (taken,), _ = Gatherer(settings(), stream, skip=[(0, 0)]).gather()
    assert taken.skipped
    stream.send(batch(["a"]))
    with pytest.raises(PersonMustAct, match=r"train/0/1 cannot be decoded.*--skip train/0/1"):
        Gatherer(settings(), stream, skip=[(0, 0)]).gather()

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from prototide.service import ahead
from prototide.service.ahead import Ahead
from prototide.service.broker import Record
from prototide.service.errors import PersonMustAct
from prototide.service.gathering import Gatherer
from prototide.service.settings import load
from tests.support.stream import MemoryStream, batch, until


class Held(MemoryStream):
    """A stream that gives nothing until it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.let = threading.Event()
        self.readers: set[str] = set()

    def poll(self, timeout: float) -> Record | None:
        self.let.wait()
        self.readers.add(threading.current_thread().name)
        return super().poll(timeout)


@pytest.fixture
def stream() -> Iterator[Held]:
    made = Held()
    made.let.set()
    yield made
    made.let.set()


def ahead_of(stream: MemoryStream) -> Ahead:
    return Ahead(Gatherer(load(None, ["batch.max_rows=2"], {}), stream))


def offsets(subject: Ahead) -> list[int]:
    taken, _ = subject.gather(lambda: True, lambda: None)
    return [each.record.offset for each in taken]


def send(stream: MemoryStream, records: int) -> None:
    for _ in range(records):
        stream.send(batch(["a"]))


def test_steps_come_in_order_whoever_gathers_them(stream: Held) -> None:
    send(stream, 5)
    subject = ahead_of(stream)
    found = []
    for _ in range(4):
        found.append(offsets(subject))
        subject.begin_next()
    subject.close()
    assert found == [[0, 1], [2, 3], [4], []]
    assert len(stream.readers) == 2


def test_behind_a_step_that_was_not_full_nothing_is_read(stream: Held) -> None:
    send(stream, 1)
    subject = ahead_of(stream)
    assert offsets(subject) == [0]
    subject.begin_next()
    send(stream, 1)
    subject.close()
    assert len(stream.waiting) == 1


def test_at_most_one_step_is_gathered_ahead(stream: Held) -> None:
    send(stream, 7)
    subject = ahead_of(stream)
    assert offsets(subject) == [0, 1]
    subject.begin_next()
    until(lambda: len(stream.waiting) == 3)
    subject.close()
    assert len(stream.waiting) == 3


def test_who_waits_for_a_step_turns(stream: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "WAIT_SECONDS", 0.01)
    send(stream, 4)
    subject = ahead_of(stream)
    offsets(subject)
    stream.let.clear()
    subject.begin_next()
    taken, _ = subject.gather(lambda: True, stream.let.set)  # the first turn lets the stream go on
    subject.close()
    assert [each.record.offset for each in taken] == [2, 3]


def test_a_failure_is_raised_where_the_step_is_asked_for(stream: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    send(stream, 2)
    subject = ahead_of(stream)
    offsets(subject)

    def fails(timeout: float) -> Record | None:
        raise PersonMustAct("by design", "mend it")

    monkeypatch.setattr(stream, "poll", fails)
    subject.begin_next()
    with pytest.raises(PersonMustAct, match="by design"):
        offsets(subject)
    subject.close()


def test_after_closing_nothing_reads_any_more(stream: Held) -> None:
    send(stream, 4)
    subject = ahead_of(stream)
    offsets(subject)
    stream.let.clear()
    subject.begin_next()
    closing = threading.Thread(target=subject.close)
    closing.start()
    assert closing.is_alive()  # it waits for who reads
    stream.let.set()
    closing.join()
    left = len(stream.waiting)
    with pytest.raises(RuntimeError):
        subject.begin_next()
    assert len(stream.waiting) == left == 0

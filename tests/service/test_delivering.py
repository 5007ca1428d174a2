from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from prototide.service import delivering
from prototide.service.broker import Output
from prototide.service.delivering import Committed, Delivery, Transactor
from prototide.service.errors import RestartMayHelp
from prototide.service.journal import Encoding, Heartbeat, Step, decode
from tests.support.stream import until


class Transactions:
    """A sink that commits when it is let."""

    def __init__(self) -> None:
        self.let = threading.Semaphore(0)
        self.done: list[tuple[list[bytes], list[object]]] = []
        self.broken = False

    def commit(self, outputs: Sequence[Output], journal: Sequence[Output]) -> list[int]:
        self.let.acquire()
        if self.broken:
            raise RestartMayHelp("fenced", "start again")
        self.done.append(([output.value for output in outputs], [decode(each.value) for each in journal]))
        return [100 * len(self.done) + number for number in range(len(journal))]


def delivery(number: int) -> Delivery:
    entry = Step("m", "i", 0, number, True, (), 0, 0, 0, (), Encoding("msgpack", 3, 1))
    return Delivery(number, [Output("t", 0, None, b"%d" % number, ())], entry)


def transactor(sink: Transactions, interval_seconds: float = 0.0) -> Transactor:
    made = Transactor(sink, "journal", "me", interval_seconds)
    made.start()
    return made


@pytest.fixture
def sink() -> Iterator[Transactions]:
    made = Transactions()
    yield made
    made.let.release(1000)


def nothing() -> None:
    pass


def committed(subject: Transactor, count: int) -> list[Committed]:
    found: list[Committed] = []

    def enough() -> bool:
        found.extend(subject.committed())
        return len(found) >= count

    until(enough)
    return found


def test_steps_are_committed_in_order_each_in_a_transaction_of_its_own(sink: Transactions) -> None:
    subject = transactor(sink)
    sink.let.release(3)
    for number in (1, 2, 3):
        subject.submit(delivery(number), nothing)
    assert [(each.number, each.journal) for each in committed(subject, 3)] == [(1, 101), (2, 201), (3, 301)]
    assert [outputs for outputs, _ in sink.done] == [[b"1"], [b"2"], [b"3"]]
    subject.close(5)


def test_nothing_is_told_before_it_is_committed(sink: Transactions) -> None:
    subject = transactor(sink)
    subject.submit(delivery(1), nothing)
    assert subject.committed() == []
    sink.let.release()
    assert [each.number for each in committed(subject, 1)] == [1]
    subject.close(5)


def test_at_most_one_step_waits_behind_the_open_transaction(sink: Transactions) -> None:
    subject = transactor(sink)
    turns: list[int] = []

    def turned() -> None:
        turns.append(len(sink.done))
        sink.let.release()

    for number in (1, 2, 3):
        subject.submit(delivery(number), turned)
    assert turns[0] == 0  # the third waited until the first was committed
    sink.let.release(3)
    assert len(committed(subject, 3)) == 3
    subject.close(5)


def test_steps_of_an_interval_share_a_transaction(sink: Transactions) -> None:
    subject = transactor(sink, interval_seconds=60)
    sink.let.release(9)
    for number in (1, 2, 3):
        subject.submit(delivery(number), nothing)
    assert sink.done == []
    subject.finish(nothing)
    ((outputs, entries),) = sink.done
    assert outputs == [b"1", b"2", b"3"]
    assert [entry.number for entry in entries if isinstance(entry, Step)] == [1, 2, 3]
    assert [each.journal for each in subject.committed()] == [101, 102, 103]
    subject.close(5)


def test_the_interval_bounds_how_long_a_step_waits(sink: Transactions) -> None:
    subject = transactor(sink, interval_seconds=0.05)
    sink.let.release(9)
    subject.submit(delivery(1), nothing)
    assert len(committed(subject, 1)) == 1
    subject.close(5)


def test_an_idle_owner_commits_heartbeats(sink: Transactions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prototide.service.delivering.HEARTBEAT_SECONDS", 0.02)
    subject = transactor(sink)
    sink.let.release(2)
    until(lambda: len(sink.done) == 2)
    assert all(outputs == [] and isinstance(entries[0], Heartbeat) for outputs, entries in sink.done)
    assert subject.committed() == []
    sink.let.release(100)
    subject.close(5)


def test_a_failure_is_raised_in_the_loop_wherever_it_waits(sink: Transactions) -> None:
    subject = transactor(sink)
    sink.broken = True
    subject.submit(delivery(1), nothing)
    sink.let.release()
    with pytest.raises(RestartMayHelp, match="fenced"):
        subject.finish(nothing)
    for call in (lambda: subject.submit(delivery(2), nothing), lambda: subject.committed()):
        with pytest.raises(RestartMayHelp, match="fenced"):
            call()


def test_closing_forgets_what_waits(sink: Transactions) -> None:
    subject = transactor(sink, interval_seconds=60)
    subject.submit(delivery(1), nothing)
    subject.close(5)
    assert sink.done == []


def test_it_is_free_when_a_step_would_be_committed_at_once(sink: Transactions) -> None:
    subject = transactor(sink)
    assert subject.is_free()
    subject.submit(delivery(1), nothing)
    assert not subject.is_free()
    sink.let.release()
    committed(subject, 1)
    until(subject.is_free)


def test_steps_that_share_transactions_never_wait_for_each_other(sink: Transactions) -> None:
    subject = transactor(sink, interval_seconds=0.001)
    subject.submit(delivery(1), nothing)
    assert subject.is_free()


def test_after_a_failure_nothing_is_waited_for(sink: Transactions) -> None:
    subject = transactor(sink)
    sink.broken = True
    sink.let.release()
    subject.submit(delivery(1), nothing)
    until(subject.is_free)
    with pytest.raises(RestartMayHelp):
        subject.committed()


def test_the_owner_is_heard_of_while_steps_wait_for_a_long_interval(
    sink: Transactions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivering, "HEARTBEAT_SECONDS", 0.01)
    subject = transactor(sink, interval_seconds=1000)
    subject.submit(delivery(1), nothing)
    sink.let.release(3)
    until(lambda: len(sink.done) == 3)
    assert all(isinstance(entry, Heartbeat) for _, entries in sink.done for entry in entries)
    sink.let.release(100)
    subject.finish(nothing)
    assert [each.number for each in subject.committed()] == [1]

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from prototide.service import replaying
from prototide.service.broker import Record
from prototide.service.course import Course
from prototide.service.errors import PersonMustAct, RestartMayHelp
from prototide.service.journal import Genesis, Heartbeat, Range, Step
from prototide.service.journal_reader import Found
from prototide.service.replaying import RangeReader, Replay
from prototide.service.settings import load
from prototide.service.topics import Topology
from prototide.service.worker import Worker
from tests.support.stream import LastLabel, MemoryStream, batch

SETTINGS = load(None, ["batch.max_rows=3"], {})
TOPOLOGY = Topology(
    train_partitions=(0, 1),
    partitions={"train": 2, "predictions": 2, "dead-letters": 1},
    ids={},
    max_message_bytes={"predictions": 2**24, "dead-letters": 2**20},
)
START = Course("a-model", 0, 0, {0: 0, 1: 0}, 10)


class Log:
    """A source that reads what is assigned, in the order of the partitions, a few records at a time."""

    topic = "train"

    def __init__(self, records: list[Record]) -> None:
        self.records = records
        self.at: dict[int, int] = {}
        self.paused: set[int] = set()
        self.pauses = 0

    def assign(self, positions: Mapping[int, int]) -> None:
        self.at = dict(positions)

    def assign_more(self, positions: Mapping[int, int]) -> None:
        self.at.update(positions)

    def pause(self, partition: int) -> None:
        self.pauses += 1
        self.paused.add(partition)

    def resume(self, partition: int) -> None:
        self.paused.remove(partition)

    def poll(self, timeout: float) -> Record | None:
        return next(iter(self.consume(1, timeout)), None)

    def consume(self, most: int, timeout: float) -> list[Record]:
        readable = [
            record
            for record in self.records
            if record.partition in self.at.keys() - self.paused and record.offset >= self.at[record.partition]
        ]
        taken = sorted(readable, key=lambda record: (record.partition, record.offset))[: min(most, 2)]
        for record in taken:
            self.at[record.partition] = record.offset + 1
        return taken


class Observer:
    replayed = 0

    def step_replayed(self) -> None:
        self.replayed += 1


def live() -> tuple[LastLabel, list[Record], list[Step]]:
    """A model, the records that it learned, and the journal of how."""
    stream, sent = MemoryStream(), []
    for number, partition in enumerate((0, 0, 1, 0, 1, 1, 0)):
        value = b"bad" if number == 2 else batch(["a", "b"][: 1 + number % 2])
        sent.append(stream.send(value, partition))
    model = LastLabel()
    worker = Worker(SETTINGS, TOPOLOGY, model, START, stream, stream, {(0, 1)})
    while worker.step():
        pass
    return model, sent, stream.journal


def replay_of(
    sent: list[Record], observer: Observer | None = None, learning: Callable[[int], object] = lambda _: None
) -> tuple[Replay, Log]:
    log = Log(sent)
    reader = RangeReader(log, START, 0.2, lambda: False)  # type: ignore[arg-type]
    return Replay(SETTINGS, TOPOLOGY, LastLabel(), START, reader, observer or Observer(), learning), log


def follow(replay: Replay, entries: list[Any]) -> None:
    replay.follow([Found(10 + number, entry) for number, entry in enumerate(entries)], lambda: False)


def test_a_replay_learns_what_was_learned() -> None:
    model, sent, journal = live()
    observer = Observer()
    replay, _ = replay_of(sent, observer)
    follow(replay, [journal[0], Heartbeat("me", 1), *journal[1:]])
    assert replay.model.calls == model.calls
    assert (replay.model.last, replay.model.rows) == (model.last, model.rows)
    assert replay.course == Course("a-model", len(journal), len(journal), {0: 4, 1: 3}, 11 + len(journal))
    assert observer.replayed == len(journal) > 2


def test_a_partition_that_runs_ahead_is_paused_until_it_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaying, "MOST_AHEAD_BYTES", 0)
    sent = [Record("train", partition, offset, 1, None, b"v", ()) for partition in (0, 1) for offset in range(9)]
    log = Log(sent)
    reader = RangeReader(log, START, 0.2, lambda: False)  # type: ignore[arg-type]
    assert reader.read(Range(1, 0, 9, 9)) == sent[9:]
    assert log.pauses == 1
    assert reader.read(Range(0, 0, 9, 9)) == sent[:9]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"values_crc": 1}, "CRC-32 of the records"),
        ({"predictions_crc": 1}, "CRC-32 of the predictions"),
        ({"dead_letters": 7}, "dead letters"),
        ({"skipped": ()}, "dead letters|CRC"),
    ],
)
def test_a_step_that_cannot_be_repeated_ends_the_replay(change: dict[str, Any], says: str) -> None:
    _, sent, journal = live()
    replay, _ = replay_of(sent)
    number = next(each for each, step in enumerate(journal) if step.skipped)
    journal[number] = replace(journal[number], **change)
    with pytest.raises(PersonMustAct, match=rf"step {number + 1} cannot be repeated: ({says})"):
        follow(replay, journal)
    assert replay.course.step == number


def test_a_record_that_is_missing_ends_the_replay() -> None:
    _, sent, journal = live()
    replay, _ = replay_of([record for record in sent if record.offset != 0 or record.partition != 0])
    with pytest.raises(PersonMustAct, match="records"):
        follow(replay, journal)


def test_records_that_never_come_are_worth_a_restart() -> None:
    _, sent, journal = live()
    replay, _ = replay_of(sent[:-1])
    with pytest.raises(RestartMayHelp, match="gave no record"):
        follow(replay, journal)


def test_a_gap_in_the_steps_ends_the_replay() -> None:
    _, sent, journal = live()
    replay, _ = replay_of(sent)
    with pytest.raises(PersonMustAct, match="step 2 follows step 0"):
        follow(replay, journal[1:])


def test_a_record_that_does_not_decode_ends_the_replay() -> None:
    replay, _ = replay_of([])
    with pytest.raises(PersonMustAct, match="offset 12 does not decode: why"):
        replay.follow([Found(12, None, "why")], lambda: False)


def test_a_model_that_another_instance_began_is_worth_a_restart() -> None:
    replay, _ = replay_of([])
    with pytest.raises(RestartMayHelp, match="new model"):
        follow(replay, [Genesis("other", "i", 0, "train", {0: 0}, {}, {})])


def test_a_replay_can_be_stopped() -> None:
    _, sent, journal = live()
    replay, _ = replay_of(sent)
    with pytest.raises(RestartMayHelp, match="asked to stop"):
        replay.follow([Found(10, journal[0])], lambda: True)


def test_a_partition_that_appeared_later_is_read_from_where_its_first_range_begins() -> None:
    sent = [Record("train", 5, 0, 1, None, batch(["a"]), ())]
    log = Log(sent)
    reader = RangeReader(log, START, 0.2, lambda: False)  # type: ignore[arg-type]
    assert reader.read(Range(5, 0, 1, 1)) == sent


def test_ranges_are_read_over_gaps() -> None:
    sent = [Record("train", 0, offset, 1, None, b"v", ()) for offset in (0, 3, 7)]
    reader = RangeReader(Log(sent), START, 0.2, lambda: False)  # type: ignore[arg-type]
    assert deque(record.offset for record in reader.read(Range(0, 0, 4, 2))) == deque([0, 3])
    assert [record.offset for record in reader.read(Range(0, 4, 8, 1))] == [7]


def test_what_other_partitions_send_is_no_answer() -> None:
    sent = [Record("train", 0, offset, 1, None, b"", ()) for offset in range(100_000)]
    reader = RangeReader(Log(sent), START, 0.2, lambda: False)  # type: ignore[arg-type]
    with pytest.raises(RestartMayHelp, match="train/1 gave no record"):
        reader.read(Range(1, 0, 9, 9))


def test_the_loop_is_told_how_many_rows_it_will_learn() -> None:
    _, sent, journal = live()
    told: list[int] = []
    replay, _ = replay_of(sent, learning=told.append)
    follow(replay, list(journal))
    assert len(told) == len(journal)
    assert sum(told) == 7

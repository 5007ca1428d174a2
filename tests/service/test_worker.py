from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import pytest

from prototide.service.course import Course
from prototide.service.errors import PersonMustAct, RestartMayHelp
from prototide.service.journal import Range, crc
from prototide.service.settings import load
from prototide.service.topics import Topology
from prototide.service.wire import decode_predictions
from prototide.service.worker import Worker
from tests.support.stream import LastLabel, MemoryStream, batch

TOPOLOGY = Topology(
    train_partitions=(0, 1, 2),
    partitions={"train": 3, "predictions": 2, "dead-letters": 1},
    ids={"train": "an-id"},
    max_message_bytes={"predictions": 2**24, "dead-letters": 2**20},
)


def worker(
    stream: MemoryStream, *overrides: str, model: Any = None, step: int = 0, skip: Collection[tuple[int, int]] = ()
) -> Worker:
    settings = load(None, overrides, {})
    course = Course("a-model", step, step, {0: 0, 1: 0, 2: 0}, 10)
    return Worker(settings, TOPOLOGY, model or LastLabel(), course, stream, stream, skip)


def labels_sent(stream: MemoryStream) -> list[list[Any]]:
    return [decode_predictions(output.value).labels for output in stream.to("predictions")]


def test_no_record_is_no_step() -> None:
    assert worker(MemoryStream()).step() == []


def test_rows_are_predicted_by_a_model_that_saw_earlier_steps_only() -> None:
    stream = MemoryStream()
    stream.send(batch(["a", "b"]))
    stream.send(batch(["c"]))
    subject = worker(stream)
    subject.step()
    stream.send(batch(["d"]))
    subject.step()
    assert labels_sent(stream) == [[None, None], [None], ["c"]]


def test_a_prediction_tells_its_source_and_how_many_steps_the_model_had_seen() -> None:
    stream = MemoryStream()
    stream.send(batch(["a", None], ids=["x", "y"], ts=77), partition=1, key=b"k")
    subject = worker(stream, step=41)
    (stats,) = subject.step()
    (output,) = stream.to("predictions")
    sent = decode_predictions(output.value)
    assert (sent.source, sent.step, sent.truth, sent.ids, sent.ts) == (("train", 1, 0), 41, ["a", None], ["x", "y"], 77)
    assert (output.key, output.partition) == (b"k", 1)
    assert dict(output.headers)["prototide-source"] == "train/1/0"
    assert stats.trained == 42


def test_without_an_event_time_the_record_time_is_it() -> None:
    stream = MemoryStream()
    stream.send(batch(["a"]), timestamp_ms=123)
    worker(stream).step()
    assert decode_predictions(stream.to("predictions")[0].value).ts == 123


@pytest.mark.parametrize("k", [0, 1, 3])
def test_top_k_is_cut_by_record(k: int) -> None:
    stream = MemoryStream()
    stream.send(batch(["a"] * 2))
    stream.send(batch(["a"]))
    worker(stream, f"predictions.top_k={k}", model=LastLabel("z")).step()
    sent = [decode_predictions(output.value) for output in stream.to("predictions")]
    assert [each.top_k for each in sent] == [k or None] * 2
    if k:
        assert [each.top_labels for each in sent] == [(["z"] + [None] * (k - 1)) * n for n in (2, 1)]
        assert [len(each.top_probs) for each in sent if each.top_probs is not None] == [2 * k, k]


def test_widths_may_differ_inside_a_step() -> None:
    stream = MemoryStream()
    for columns in (3, 9, 5):
        stream.send(batch(["a"], columns=columns))
    model = LastLabel()
    worker(stream, model=model).step()
    assert model.calls == [(3, 9)]


def test_a_bad_record_costs_only_itself() -> None:
    stream = MemoryStream()
    stream.send(batch(["a"]))
    bad = stream.send(b"\xc1 not msgpack", key=b"k", headers=[("mine", b"1")])
    stream.send(batch(["b"]))
    subject = worker(stream)
    (stats,) = subject.step()
    assert (stats.records, stats.rows, stats.dead_letters) == (3, 2, {"decode": 1})
    (letter,) = stream.to("dead-letters")
    headers = dict(letter.headers)
    assert (letter.key, letter.value, headers["mine"]) == (b"k", bad.value, b"1")
    assert (headers["dlq.reason"], headers["dlq.offset"]) == ("decode", "1")
    assert subject.course.positions == {0: 3, 1: 0, 2: 0}


def test_a_step_of_bad_records_only_moves_on() -> None:
    stream = MemoryStream()
    stream.send(None, partition=2)
    model = LastLabel()
    subject = worker(stream, model=model)
    (stats,) = subject.step()
    assert (stats.rows, stats.dead_letters, model.calls) == (0, {"empty": 1}, [])
    assert subject.course.positions[2] == 1


def test_positions_stay_when_outputs_are_not_delivered() -> None:
    stream = MemoryStream(brokers_away=True)
    stream.send(batch(["a"]))
    subject = worker(stream)
    with pytest.raises(RestartMayHelp):
        subject.step()
    assert (subject.committed.positions, subject.committed.step) == ({0: 0, 1: 0, 2: 0}, 0)


def test_statistics_count_rows_by_what_became_of_them() -> None:
    stream = MemoryStream()
    stream.send(batch(["a", None, "b", "a"]))
    (stats,) = worker(stream, model=LastLabel("a")).step()
    assert (stats.rows, stats.rows_learned, stats.rows_unknown) == (4, 3, 0)
    np.testing.assert_array_equal(stats.errors, [False, True, False])
    assert stats.class_shift == {"a": 0.25}
    assert stats.lag == {("train", 0): 0, ("train", 1): 0, ("train", 2): 0}
    assert len(stats.latency_seconds) == 1


def test_unknown_counts_as_wrong() -> None:
    stream = MemoryStream()
    stream.send(batch(["a"]))
    (stats,) = worker(stream).step()
    assert (stats.rows_unknown, stats.errors.tolist()) == (1, [True])


def test_a_service_that_does_not_learn_predicts_and_keeps_its_step() -> None:
    stream = MemoryStream()
    stream.send(batch(["a", "b"]))
    model = LastLabel("old")
    subject = worker(stream, "learn=false", model=model, step=5)
    (stats,) = subject.step()
    assert (model.last, stats.trained, stats.rows_learned) == ("old", 5, 0)
    assert labels_sent(stream) == [["old", "old"]]
    assert stats.errors.tolist() == [True, True]
    assert subject.course.positions[0] == 1


def test_order_per_source_partition_is_kept() -> None:
    stream = MemoryStream()
    for partition in (2, 0, 2, 1, 2):
        stream.send(batch(["a"]), partition)
    worker(stream).step()
    by_partition: dict[int, list[Sequence[Any]]] = {}
    for output in stream.to("predictions"):
        by_partition.setdefault(output.partition, []).append(decode_predictions(output.value).source[1:])
    assert by_partition == {0: [(0, 0), (2, 0), (2, 1), (2, 2)], 1: [(1, 0)]}


def test_records_that_the_model_cannot_digest_are_named() -> None:
    class Broken(LastLabel):
        def learn(self, *_: Any, **__: Any) -> Any:
            raise ZeroDivisionError("by design")

    stream = MemoryStream()
    stream.send(batch(["a"]), partition=1)
    with pytest.raises(PersonMustAct, match=r"train/1/0: .*by design.*--skip train/1/0"):
        worker(stream, model=Broken()).step()


def test_a_snapshot_belongs_to_its_step_whatever_follows() -> None:
    stream = MemoryStream()
    stream.send(batch(["a"]))
    subject = worker(stream)
    subject.step()
    snapshot = subject.snapshot()
    assert not subject.moved_since(snapshot.place.positions)
    stream.send(batch(["b"]))
    subject.step()
    kept = snapshot.collected()
    assert (kept.step, kept.positions["train"][0], kept.arrays["rows"].tolist()) == (1, 1, [1])
    assert kept.topic_ids == {"train": "an-id"}
    assert subject.moved_since(kept.positions)


def test_the_journal_tells_each_step_from_where_the_last_one_ended() -> None:
    stream = MemoryStream()
    subject = worker(stream)
    values = [batch(["a"]), batch(["b"]), b"bad", batch(["c"])]
    for partition, value in zip((0, 1, 0, 0), values, strict=True):
        stream.send(value, partition)
    subject.step()
    stream.ends[1] += 7  # offsets that no record has
    values.append(batch(["d"]))
    stream.send(values[-1], 1)
    subject.step()
    first, second = stream.journal
    assert (first.number, first.ranges) == (1, (Range(0, 0, 3, 3), Range(1, 0, 1, 1)))
    assert (second.number, second.ranges) == (2, (Range(1, 1, 9, 1),))
    assert first.values_crc == crc([values[0], values[2], values[3], values[1]])
    assert first.predictions_crc == crc([output.value for output in stream.to("predictions")[:3]])
    assert (first.dead_letters, first.learned, first.model) == (1, True, "a-model")


def test_a_record_that_a_person_has_skipped_is_a_dead_letter_and_journalled() -> None:
    stream = MemoryStream()
    stream.send(batch(["a"]))
    stream.send(batch(["b"]))
    worker(stream, skip={(0, 1)}).step()
    (letter,) = stream.to("dead-letters")
    assert dict(letter.headers)["dlq.reason"] == "poison"
    assert stream.journal[0].skipped == ((0, 1),)
    assert labels_sent(stream) == [[None]]


def test_only_committed_steps_are_told_of() -> None:
    stream = MemoryStream(slow=True)
    subject = worker(stream)
    stream.send(batch(["a"]))
    assert subject.step() == []
    assert (subject.course.step, subject.committed.step) == (1, 0)
    assert subject.snapshot().place.journal is None
    stream.send(batch(["b"]))
    assert [stats.number for stats in subject.step()] == [1, 2]
    assert (subject.committed.step, subject.committed.journal) == (2, 12)
    assert subject.snapshot().place.journal == 12


def test_finishing_waits_for_the_last_commit() -> None:
    stream = MemoryStream(slow=True)
    subject = worker(stream)
    stream.send(batch(["a"]))
    subject.step()
    assert [stats.number for stats in subject.finish()] == [1]


def test_records_of_which_one_is_indigestible_are_named_with_how_to_find_it() -> None:
    class Broken(LastLabel):
        def learn(self, *_: Any, **__: Any) -> Any:
            raise ZeroDivisionError("by design")

    stream = MemoryStream()
    for partition in (0, 1, 1):
        stream.send(batch(["a"]), partition)
    with pytest.raises(PersonMustAct, match=r"train/0/0, train/1/0-1: .*batch.max_rows=1"):
        worker(stream, model=Broken()).step()

from __future__ import annotations

from dataclasses import replace

import pytest

from prototide.service.course import Course, JournalProblemError, Survey, after, begun
from prototide.service.journal import Encoding, Genesis, Heartbeat, Range, Step

GENESIS = Genesis("m", "i", 0, "train", {0: 5, 1: 0}, {}, {})


def step(number: int, *ranges: Range, model: str = "m", learned: bool = True) -> Step:
    return Step(model, "i", 0, number, learned, ranges, 0, 0, 0, (), Encoding("msgpack", 3, 1000))


START = begun(GENESIS, 10)


def test_a_model_begins_at_its_genesis() -> None:
    assert Course("m", 0, 0, {0: 5, 1: 0}, 11) == START


def test_a_step_moves_its_partitions_on() -> None:
    course = after(START, 12, step(1, Range(0, 5, 9, 3)))
    assert course == Course("m", 1, 1, {0: 9, 1: 0}, 13)


def test_a_step_that_only_predicts_is_no_training_step() -> None:
    course = after(START, 12, step(1, Range(0, 5, 9, 3), learned=False))
    assert (course.step, course.trained) == (1, 0)


def test_a_partition_that_appears_begins_at_0() -> None:
    assert after(START, 12, step(1, Range(7, 0, 2, 2))).positions == {0: 5, 1: 0, 7: 2}


def test_a_heartbeat_changes_nothing_but_the_offset() -> None:
    assert after(START, 12, Heartbeat("i", 1)) == replace(START, journal=13)


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        (step(2, Range(0, 5, 9, 3)), "step 2 follows step 0"),
        (step(1, Range(0, 6, 9, 3)), "records 6 to 9 of partition 0, whose position is 5"),
        (step(1, Range(0, 5, 5, 0)), "records 5 to 5"),
        (step(1, Range(3, 1, 2, 1)), "whose position is 0"),
        (step(1, Range(0, 5, 9, 3), model="other"), "is of model other, not of m"),
    ],
)
def test_what_cannot_follow_is_said(entry: Step, says: str) -> None:
    with pytest.raises(JournalProblemError, match=says):
        after(START, 12, entry)


def test_a_survey_finds_where_the_newest_model_begins_and_ends() -> None:
    survey = Survey(None)
    survey.take(0, GENESIS)
    survey.take(1, step(1, Range(0, 5, 6, 1)))
    survey.take(2, step(7, Range(0, 5, 6, 1)))  # wrong, but of an earlier model
    survey.undecodable(3, "why")
    survey.take(4, replace(GENESIS, model="n"))
    survey.take(6, step(1, Range(0, 5, 6, 1), model="n"))
    survey.take(8, Heartbeat("i", 1))
    assert survey.problem is None
    assert survey.base == Course("n", 0, 0, {0: 5, 1: 0}, 5)
    assert survey.course == Course("n", 1, 1, {0: 6, 1: 0}, 9)
    assert survey.genesis is not None
    assert survey.genesis.model == "n"


def test_a_survey_goes_on_from_a_checkpoint() -> None:
    survey = Survey(START)
    survey.take(12, step(1, Range(0, 5, 6, 1)))
    assert (survey.base, survey.genesis) == (START, None)
    assert survey.course is not None
    assert survey.course.step == 1


def test_a_survey_tells_the_first_problem() -> None:
    survey = Survey(START)
    survey.take(12, step(3, Range(0, 5, 6, 1)))
    survey.undecodable(13, "later")
    assert survey.problem == "at offset 12 step 3 follows step 0"


def test_a_journal_without_its_genesis_is_a_problem() -> None:
    survey = Survey(None)
    survey.take(5, Heartbeat("i", 1))
    assert survey.problem is None
    survey.take(6, step(4, Range(0, 5, 6, 1)))
    assert survey.problem == "its first record left, at offset 6, is step 4: the genesis was deleted"

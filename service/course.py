"""Where a model is in the journal: pure bookkeeping of what each record changes, and whether it may follow."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from prototide.service.journal import Entry, Genesis, Range, Step


class JournalProblemError(ValueError):
    """The journal is not what the service wrote; the message says where and why."""


@dataclass(frozen=True, slots=True)
class Course:
    """A model after `step` steps; `positions`: partition -> offset of the first record that it has not seen."""

    model: str
    step: int  # number of the last step
    trained: int  # how many steps were learned, not only predicted
    positions: Mapping[int, int]
    journal: int  # offset behind the record that led here


def begun(genesis: Genesis, offset: int) -> Course:
    """At the genesis record at `offset`."""
    return Course(genesis.model, 0, 0, dict(genesis.positions), offset + 1)


def after(course: Course, offset: int, entry: Entry) -> Course:
    """`course` after the record at `offset`; raises JournalProblemError when that cannot follow."""
    match entry:
        case Genesis():
            return begun(entry, offset)
        case Step():
            _check(course, offset, entry)
            positions = advanced(course.positions, entry.ranges)
            return Course(course.model, entry.number, course.trained + entry.learned, positions, offset + 1)
        case _:
            return replace(course, journal=offset + 1)


def advanced(positions: Mapping[int, int], ranges: Iterable[Range]) -> dict[int, int]:
    """Positions behind the ranges."""
    return {**positions, **{each.partition: each.end for each in ranges}}


def _check(course: Course, offset: int, step: Step) -> None:
    if step.model != course.model:
        raise JournalProblemError(f"the record at offset {offset} is of model {step.model}, not of {course.model}")
    if step.number != course.step + 1:
        raise JournalProblemError(f"at offset {offset} step {step.number} follows step {course.step}")
    for each in step.ranges:
        at = course.positions.get(each.partition, 0)
        if each.begin != at or each.end <= each.begin:
            raise JournalProblemError(
                f"step {step.number} at offset {offset} has records {each.begin} to {each.end} of partition "
                f"{each.partition}, whose position is {at}"
            )


@dataclass(slots=True)
class Survey:
    """A first look at the journal: where the newest model begins and ends, before anything of it is learned.

    What is wrong before a genesis concerns an earlier model; only what is wrong after the last one counts.
    """

    course: Course | None  # so far; None: no model known yet
    genesis: Genesis | None = None  # the newest one seen
    base: Course | None = field(init=False)  # where the replay begins: the checkpoint's, or the newest genesis
    problem: str | None = None

    def __post_init__(self) -> None:
        self.base = self.course

    def take(self, offset: int, entry: Entry) -> None:
        """The record at `offset`."""
        if isinstance(entry, Genesis):
            self.genesis, self.problem = entry, None
            self.base = self.course = begun(entry, offset)
        elif self.problem is None:
            self._follow(offset, entry)

    def undecodable(self, offset: int, why: str) -> None:
        """The record at `offset` does not decode."""
        self.problem = self.problem or f"the record at offset {offset} does not decode: {why}"

    def _follow(self, offset: int, entry: Entry) -> None:
        if self.course is None:
            if isinstance(entry, Step):
                self.problem = (
                    f"its first record left, at offset {offset}, is step {entry.number}: the genesis was deleted"
                )
            return
        try:
            self.course = after(self.course, offset, entry)
        except JournalProblemError as wrong:
            self.problem = str(wrong)

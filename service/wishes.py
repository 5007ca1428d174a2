"""What a person asks of one start on the command line."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from prototide.service.errors import PersonMustAct

_RECORD = re.compile(r"^(?P<topic>[a-zA-Z0-9._-]+)/(?P<partition>\d+)/(?P<offset>\d+)$")


@dataclass(frozen=True, slots=True)
class Wishes:
    """Nothing, unless asked for."""

    fresh: bool = False  # a new model
    skip: frozenset[tuple[int, int]] = frozenset()  # (partition, offset) of records that become dead letters


NO_WISHES = Wishes()


def skipped(records: Iterable[str], topic: str) -> frozenset[tuple[int, int]]:
    """(partition, offset) of each ``topic/partition/offset``; raises PersonMustAct for anything else."""
    found = set()
    for record in records:
        match = _RECORD.match(record)
        if match is None or match["topic"] != topic:
            raise PersonMustAct(f"--skip {record} names no record of topic {topic}", f"write --skip {topic}/0/17")
        found.add((int(match["partition"]), int(match["offset"])))
    return frozenset(found)

"""Which checkpoint a start goes on from, and where the live model begins; the journal and the topics are in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prototide.core import FastKMeansClassifier
from prototide.service.checkpoints import Checkpoint
from prototide.service.errors import PersonMustAct
from prototide.service.journal import Entry, Genesis, Heartbeat
from prototide.service.journal_reader import Found
from prototide.service.recovery import Recovery
from prototide.service.settings import Settings, load
from prototide.service.stores import FolderStore
from prototide.service.topics import Topology

OLD, NEW = load(None, ["core.k_init=3"], {}), load(None, ["core.k_init=5"], {})
IDS = {"train": "T", NEW.topics.journal: "J"}


class Topics:
    """The train topic and the journal, as `Source` and `JournalReader` tell of them."""

    topic = NEW.topics.journal

    def __init__(self, journal: dict[int, Entry], low: int = 0, partitions: int = 1) -> None:
        self.journal = journal
        self.low = low
        self.watermark = dict.fromkeys(range(partitions), (0, 5000))

    def bounds(self) -> tuple[int, int]:
        return self.low, max(self.journal) + 1

    def settled_end(self) -> int:
        return self.bounds()[1]

    def read(self, begin: int, end: int) -> Iterator[Found]:
        return (Found(offset, entry) for offset, entry in self.journal.items() if begin <= offset < end)

    def partitions(self) -> list[int]:
        return list(self.watermark)

    def watermarks(self, partitions: list[int]) -> dict[int, tuple[int, int]]:
        return {each: self.watermark[each] for each in partitions}

    def assign(self, positions: dict[int, int]) -> None:
        pass


class Observer:
    rejected = 0

    def checkpoint_rejected(self) -> None:
        self.rejected += 1

    def step_replayed(self) -> None:
        pass


def checkpoint(settings: Settings, model: str, step: int, journal: int, **more: Any) -> Checkpoint:
    arrays, described = FastKMeansClassifier(**settings.core.classifier_parameters()).state()
    positions = {"train": {0: step}}
    return replace(
        Checkpoint(step, step, positions, arrays, described, settings.fingerprint(), IDS, model, journal), **more
    )


def genesis(settings: Settings) -> Genesis:
    return Genesis("new", "me", 0, "train", {0: 0}, settings.fingerprint(), IDS)


def recovery(settings: Settings, topics: Topics, observer: Observer | None = None) -> Recovery:
    topology = Topology((0,), {"train": 1}, IDS, {})
    fake: Any = topics
    return Recovery(settings, topology, fake, fake, observer or Observer(), lambda: False, lambda rows: None)


def heartbeats(begin: int, end: int) -> dict[int, Entry]:
    return {offset: Heartbeat("me", 0) for offset in range(begin, end)}


@pytest.mark.parametrize("settings", [OLD, NEW])
def test_a_late_checkpoint_of_the_model_before_fresh_is_passed_over(tmp_path: Path, settings: Settings) -> None:
    store, observer = FolderStore(tmp_path), Observer()
    store.write(checkpoint(OLD, "old", step=1_000, journal=1_001), "zombie")
    store.write(checkpoint(settings, "new", step=400, journal=1_500), "me")
    topics = Topics(heartbeats(900, 1_002) | {1_002: genesis(settings)} | heartbeats(1_003, 1_600), low=900)
    topics.watermark = {0: (300, 5_000)}  # nothing before the good checkpoint could be replayed
    subject = recovery(settings, topics, observer)
    subject.replay(store)
    start = subject.begin(None)  # type: ignore[arg-type]
    assert (start.course.model, start.course.step, start.course.journal) == ("new", 400, 1_600)
    assert observer.rejected == 1


def test_one_before_a_trimmed_journal_is_passed_over_when_a_new_model_began_after_it(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write(checkpoint(OLD, "old", step=1_000, journal=500), "zombie")
    subject = recovery(NEW, Topics({1_000: genesis(NEW)}, low=900))
    subject.replay(store)
    assert subject.begin(None).course.model == "new"  # type: ignore[arg-type]


def test_a_journal_that_was_trimmed_behind_the_checkpoint_is_told(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write(checkpoint(NEW, "new", step=10, journal=500), "me")
    with pytest.raises(PersonMustAct, match=r"begins at offset 900, .* goes on at 500: the steps between are lost"):
        recovery(NEW, Topics(heartbeats(900, 950), low=900)).replay(store)


def test_a_partition_that_an_owner_learned_from_during_the_start_goes_on_where_it_was(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    store.write(checkpoint(NEW, "new", 9, 10, positions={"train": {0: 100, 2: 50}}), "me")
    subject = recovery(NEW, Topics(heartbeats(0, 12), partitions=4))
    subject.replay(store)
    start = subject.begin(None)  # type: ignore[arg-type]
    assert start.course.positions == {0: 100, 1: 0, 2: 50, 3: 0}

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prototide.service import checkpoints
from prototide.service.checkpointing import CheckpointWriter
from prototide.service.checkpoints import Checkpoint, Snapshot
from prototide.service.settings import load
from prototide.service.stores import FolderStore
from tests.support.stream import until


@dataclass
class Observer:
    written: list[int] = field(default_factory=list)
    failures: int = 0

    def checkpoint_written(self, step: int, size_bytes: int, seconds: float, at: float) -> None:
        assert size_bytes > 0
        assert seconds >= 0
        assert at > 1e9
        self.written.append(step)

    def checkpoint_failed(self) -> None:
        self.failures += 1


class Model:
    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"a": np.ones(3)}, {}


def snapshot(step: int, journal: int | None = 0) -> Snapshot:
    return Snapshot(Model(), Checkpoint(step, step, {"train": {0: step}}, {}, {}, {}, {}, journal=journal))


def writer(folder: Path, observer: Observer, interval_s: float = 0.001, keep: int = 2) -> CheckpointWriter:
    settings = load(None, [f"checkpoint.interval_s={interval_s}", f"checkpoint.keep={keep}"], {})
    return CheckpointWriter(settings, FolderStore(folder), observer, None)


def test_what_was_submitted_is_on_disk_and_the_oldest_go(tmp_path: Path) -> None:
    observer = Observer()
    subject = writer(tmp_path, observer)
    for step in (1, 2, 3):
        subject.submit(snapshot(step))
        assert subject.finish(60)
    assert observer.written == [1, 2, 3]
    assert [path.name.lstrip("0") for path in checkpoints.paths(tmp_path)] == ["3.safetensors", "2.safetensors"]
    assert subject.saved == {"train": {0: 3}}


def test_a_failure_is_counted_and_the_next_attempt_can_succeed(tmp_path: Path) -> None:
    observer, folder = Observer(), tmp_path / "folder"
    folder.write_text("a file where the folder should be")
    subject = writer(folder, observer)
    subject.submit(snapshot(1))
    until(lambda: observer.failures == 1 and subject.is_due())
    assert subject.saved is None
    folder.unlink()
    subject.submit(snapshot(1))
    assert subject.finish(60)
    assert (observer.written, observer.failures) == ([1], 1)


def test_the_room_for_a_copy_is_made_in_the_background_and_used_once(tmp_path: Path) -> None:
    subject, made = writer(tmp_path, Observer()), []

    def make() -> list[str]:
        made.append(threading.current_thread().name)
        return ["room"]

    assert subject.room(make) is None
    until(subject.is_due)
    assert subject.room(make) == ["room"]
    assert made == ["checkpoint"]
    assert subject.room(make) is None
    assert subject.finish(60)


def test_without_memory_for_it_the_copy_looks_for_its_own(tmp_path: Path) -> None:
    def none_left() -> list[str]:
        raise MemoryError

    subject = writer(tmp_path, Observer())
    assert subject.room(none_left) is None
    until(subject.is_due)
    assert subject.room(none_left) == ()


def test_none_is_due_before_the_interval_is_over(tmp_path: Path) -> None:
    subject = writer(tmp_path, Observer(), interval_s=1000)
    assert not subject.is_due()
    assert subject.finish(60)


def test_a_snapshot_waits_until_its_step_is_committed(tmp_path: Path) -> None:
    observer = Observer()
    subject = writer(tmp_path, observer)
    subject.submit(snapshot(2, journal=None))
    subject.committed(1, 11)
    assert not subject.is_due()
    subject.committed(2, 12)
    assert subject.finish(60)
    assert observer.written == [2]
    assert checkpoints.read(checkpoints.paths(tmp_path)[0]).journal == 12


def test_a_snapshot_whose_step_is_never_committed_is_never_written(tmp_path: Path) -> None:
    subject = writer(tmp_path, Observer())
    subject.submit(snapshot(2, journal=None))
    subject.committed(1, 11)
    assert subject.finish(60)
    assert checkpoints.paths(tmp_path) == []


def test_a_store_that_hangs_is_left_after_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    observer, answers = Observer(), threading.Event()
    subject = writer(tmp_path, observer)
    monkeypatch.setattr(FolderStore, "clean", lambda store, instance: answers.wait(60))
    subject.submit(snapshot(1))
    assert not subject.finish(0.01)
    assert not subject.is_due()
    answers.set()
    assert subject.finish(60)
    assert observer.written == [1]

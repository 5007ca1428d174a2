from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from prototide.service import journal
from prototide.service.clients import ClientErrors
from prototide.service.errors import RestartMayHelp
from prototide.service.journal import Heartbeat
from prototide.service.journal_reader import JournalReader
from prototide.service.settings import load

SILENCE_SECONDS = 0.3


class Quiet:
    """A consumer of three records, each only after a pause."""

    def __init__(self, pause_seconds: float) -> None:
        self.pause_seconds = pause_seconds
        self.offsets = iter(range(3))

    def assign(self, places: Any) -> None:
        pass

    def poll(self, timeout: float) -> Any:
        time.sleep(self.pause_seconds)
        offset = next(self.offsets)
        value = journal.encode(Heartbeat("somebody", 1))
        return SimpleNamespace(error=lambda: None, offset=lambda: offset, value=lambda: value)

    def consume(self, most: int, timeout: float) -> list[Any]:
        return []


def reader(consumer: Quiet) -> JournalReader:
    settings = load(None, [f"kafka.startup_timeout_s={SILENCE_SECONDS}"], {})
    made = JournalReader(settings, ClientErrors(), lambda: False)
    made.close()
    made._consumer = consumer  # type: ignore[assignment]
    return made


def test_what_the_caller_does_meanwhile_is_not_the_brokers_silence() -> None:
    found = []
    for each in reader(Quiet(0)).read(0, 3):
        time.sleep(1.5 * SILENCE_SECONDS)  # a long step is learned
        found.append(each.offset)
        if len(found) == 3:
            break
    assert found == [0, 1, 2]


def test_silence_ends_the_start() -> None:
    class Silent(Quiet):
        def poll(self, timeout: float) -> Any:
            time.sleep(0.01)

    with pytest.raises(RestartMayHelp, match="gave no record"):
        list(reader(Silent(0)).read(0, 3))

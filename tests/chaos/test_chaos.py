"""Killed at every failpoint, and at random: the model and the outputs are those of an uninterrupted run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.chaos.driver import Chaos, every_failpoint

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(900)]

Named = Callable[[str], str]


def test_killed_at_every_failpoint_nothing_is_lost_or_doubled(kafka: str, tmp_path: Path, topic_name: Named) -> None:
    with Chaos(kafka, tmp_path, topic_name) as chaos:
        for failpoint in every_failpoint():
            chaos.kill_at(failpoint)
        assert chaos.kills >= 20
        chaos.settle_and_check()


def test_killed_at_random_while_steps_share_transactions(kafka: str, tmp_path: Path, topic_name: Named) -> None:
    with Chaos(kafka, tmp_path, topic_name, "commit.interval_ms=100", seed=1) as chaos:
        for failpoint in ("committed:3", "journal-sent:4"):
            chaos.kill_at(failpoint)
        for _ in range(3):
            chaos.kill_soon()
        chaos.settle_and_check()


@pytest.mark.parametrize("sabotage", ["leave-out", "outside"])
def test_the_suite_notices_a_broken_promise(
    kafka: str, tmp_path: Path, topic_name: Named, monkeypatch: pytest.MonkeyPatch, sabotage: str
) -> None:
    monkeypatch.setenv("SABOTAGE", sabotage)
    with Chaos(kafka, tmp_path, topic_name) as chaos:
        chaos.service.module = "tests.chaos.sabotaged"
        chaos.service.overrides += ["checkpoint.interval_s=1000"]
        for failpoint in ("committed:4", "outputs-sent:4"):
            chaos.kill_at(failpoint)
        with pytest.raises(AssertionError, match=r"twice|lost|leaves records out|exit 78|not within"):
            chaos.settle_and_check()


def test_a_paused_owner_is_fenced_and_does_not_disturb_its_successor(
    kafka: str, tmp_path: Path, topic_name: Named
) -> None:
    with Chaos(kafka, tmp_path, topic_name) as chaos:
        other = chaos.service.another("instance.id=other")
        with other:
            chaos.pause_and_take_over(other)
            other.start_ready()
            assert chaos.service.start().wait(60) == 75  # it sees the live owner
            assert "is alive" in chaos.service.last_line()
            other.kill()
        chaos.settle_and_check()

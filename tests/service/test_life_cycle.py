from __future__ import annotations

import pytest

from prototide.service.life_cycle import LifeCycle, Phase


def test_a_whole_life_is_told() -> None:
    told: list[Phase] = []
    life = LifeCycle(told.append)
    for phase in (Phase.RESTORING, Phase.LIVE, Phase.DRAINING, Phase.STOPPED):
        life.enter(phase)
    assert told == list(Phase)


@pytest.mark.parametrize(("present", "next_one"), [(Phase.STARTING, Phase.LIVE), (Phase.STOPPED, Phase.LIVE)])
def test_a_phase_that_may_not_follow_is_refused(present: Phase, next_one: Phase) -> None:
    life = LifeCycle()
    life.phase = present
    with pytest.raises(ValueError, match="not followed"):
        life.enter(next_one)


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.RESTORING, Phase.LIVE, Phase.DRAINING])
def test_every_phase_may_end(phase: Phase) -> None:
    life = LifeCycle()
    life.phase = phase
    life.enter(Phase.STOPPED)

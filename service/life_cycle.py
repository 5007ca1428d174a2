"""The life of the service, and which step of it may follow which.

    starting ──> restoring ──> live ──> draining ──> stopped
        │            │           │          │           ^
        └────────────┴───────────┴──────────┴───────────┘   asked to stop early, or an error

`starting` waits for brokers and topics, `restoring` replays the journal and fences earlier owners, `live` steps,
`draining` commits the last step and writes the last checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from enum import StrEnum

log = logging.getLogger(__name__)


class Phase(StrEnum):
    """Where in its life the service is."""

    STARTING = "starting"
    RESTORING = "restoring"
    LIVE = "live"
    DRAINING = "draining"
    STOPPED = "stopped"


_FOLLOWS = {
    Phase.STARTING: {Phase.RESTORING, Phase.STOPPED},
    Phase.RESTORING: {Phase.LIVE, Phase.STOPPED},
    Phase.LIVE: {Phase.DRAINING, Phase.STOPPED},
    Phase.DRAINING: {Phase.STOPPED},
    Phase.STOPPED: set[Phase](),
}


class LifeCycle:
    """The present phase; tells whoever asked of each new one."""

    def __init__(self, entered: Callable[[Phase], object] = lambda _: None) -> None:
        self.phase = Phase.STARTING
        self._entered = entered
        entered(self.phase)

    def enter(self, phase: Phase) -> None:
        """Raises ValueError for a phase that may not follow."""
        if phase not in _FOLLOWS[self.phase]:
            raise ValueError(f"{self.phase} is not followed by {phase}")
        self.phase = phase
        self._entered(phase)
        log.info("%s", phase)

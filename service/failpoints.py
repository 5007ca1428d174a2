"""Places where a test can kill the process: a name each, armed by an environment variable in tests only.

``PROTOTIDE_FAILPOINTS=learned:3`` kills the process, as ``kill -9`` does, when it comes to that place for the third
time. Unarmed, a place costs one look into an empty dictionary.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Mapping

log = logging.getLogger(__name__)

VARIABLE = "PROTOTIDE_FAILPOINTS"

# In the order in which a process comes to them.
NAMES = (
    "checkpoint-read",  # start: the newest checkpoint is loaded
    "replayed-step",  # a journalled step was learned again
    "replayed",  # up to the journal's end, nobody disturbed yet
    "fenced",  # earlier owners cannot write any more
    "genesis",  # a new model's first record is committed, no step yet
    "assigned",  # reading begins
    "gathered",  # a step's records are decoded
    "learned",  # they are learned, in memory
    "transaction-begun",
    "outputs-sent",  # not the journal record yet
    "journal-sent",  # everything sent, nothing committed
    "committing",  # while the commit is on its way
    "committed",  # nobody knows yet
    "published",  # metrics tell
    "heartbeat",  # an idle owner's is committed
    "snapshot",  # taken, its step's commit not yet waited for
    "checkpoint-half",  # half of the file is written
    "checkpoint-written",  # whole, under its temporary name
    "checkpoint-renamed",  # under its name
    "draining",  # asked to stop
)

_armed: dict[str, int] = {}  # name -> how many more times until it kills


def arm(environ: Mapping[str, str] = os.environ) -> None:
    """Arms what the environment says: ``name:count`` separated by commas."""
    for part in filter(None, environ.get(VARIABLE, "").split(",")):
        name, _, count = part.partition(":")
        if name not in NAMES:
            raise ValueError(f"{VARIABLE}: there is no failpoint {name!r}")
        _armed[name] = int(count or 1)
    if _armed:
        log.warning("failpoints are armed, this process will be killed: %s", _armed)


def reached(name: str) -> None:
    """The process comes to the place `name`."""
    if name in _armed:
        _armed[name] -= 1
        if _armed[name] == 0:
            os.kill(os.getpid(), signal.SIGKILL)


def soon(name: str, seconds: float = 0.002) -> None:
    """The process comes to the place `name` while it does the next thing."""
    if name in _armed:
        timer = threading.Timer(seconds, reached, [name])
        timer.daemon = True
        timer.start()

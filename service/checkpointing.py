"""When checkpoints are written: now and then by a background thread, and at the end."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Protocol

from prototide.service import failpoints, stores
from prototide.service.checkpoints import Positions, Snapshot
from prototide.service.settings import Settings
from prototide.service.stores import Store

log = logging.getLogger(__name__)


class CheckpointObserver(Protocol):
    """Who is told; `metrics.Metrics`."""

    def checkpoint_written(self, step: int, size_bytes: int, seconds: float, at: float) -> None:
        """A checkpoint of `step` is safe since unix time `at`."""

    def checkpoint_failed(self) -> None:
        """An attempt failed."""


class CheckpointWriter:
    """Writes one checkpoint at a time; a failure is logged, counted and tried again at the next interval."""

    def __init__(self, settings: Settings, store: Store, observer: CheckpointObserver, saved: Positions | None) -> None:
        """`saved`: positions of the newest checkpoint, None when there is none."""
        self.saved = saved
        self._store = store
        self._uri = settings.checkpoint.uri
        self._keep = settings.checkpoint.keep
        self._interval_seconds = settings.checkpoint.interval_s
        self._writer = f"{settings.instance.id}-{os.getpid()}"
        self._instance = settings.instance.id
        self._cleaned = False  # of what earlier processes left half-written
        self._observer = observer
        self._writing: threading.Thread | None = None
        self._held: Snapshot | None = None  # its step is not committed yet
        self._room: Sequence[Any] | None = None
        self._due = time.monotonic() + self._interval_seconds

    def is_due(self) -> bool:
        """Whether the interval is over and nothing is being written."""
        return time.monotonic() >= self._due and self._held is None and not self._is_writing()

    def room(self, make: Callable[[], Sequence[Any]]) -> Sequence[Any] | None:
        """What `make` returns, made in the background, to be used once; None: not made yet.

        Getting memory from the system takes longer than copying a model into it.
        """
        if self._room is None:
            self._begin(self._make_room, make)
            return None
        room, self._room = self._room, None
        return room

    def submit(self, snapshot: Snapshot) -> None:
        """Collects and writes a snapshot in the background; not before its step is committed.

        Nothing else may be being written.
        """
        self._due = time.monotonic() + self._interval_seconds
        if snapshot.place.journal is None:
            self._held = snapshot
            failpoints.reached("snapshot")
        else:
            self._begin(self._write, snapshot)

    def committed(self, step: int, journal: int | None) -> None:
        """Step `step` is committed, `journal` is the offset behind its record."""
        if self._held is not None and self._held.place.step == step:
            held, self._held = self._held, None
            self.submit(held._replace(place=replace(held.place, journal=journal or 0)))

    def finish(self, seconds: float) -> bool:
        """Waits that long for the one that is being written; whether nothing is being written any more."""
        if self._writing is not None:
            self._writing.join(max(0.0, seconds))
        if self._is_writing():
            log.warning("the checkpoint being written is left: %s does not answer in time", self._uri)
        return not self._is_writing()

    def _begin(self, work: Callable[[Any], None], argument: Any) -> None:
        # A daemon: a store that hangs must not keep the process.
        self._writing = threading.Thread(target=work, args=(argument,), name="checkpoint", daemon=True)
        self._writing.start()

    def _is_writing(self) -> bool:
        return self._writing is not None and self._writing.is_alive()

    def _make_room(self, make: Callable[[], Sequence[Any]]) -> None:
        try:
            self._room = make()
        except MemoryError:
            self._room = ()  # the copy may still find some

    def _write(self, snapshot: Snapshot) -> None:
        started, place = time.perf_counter(), snapshot.place
        try:
            if not self._cleaned:
                self._store.clean(self._instance)
                self._cleaned = True
            size = self._store.write(snapshot.collected(), self._writer)
            stores.prune(self._store, self._keep, place.step)
        except Exception as failed:  # whatever it is, the service goes on and tries again
            self._observer.checkpoint_failed()
            log.error("checkpoint of step %d failed: %s: %s", place.step, type(failed).__name__, failed)
            return
        self.saved = place.positions
        seconds = time.perf_counter() - started
        self._observer.checkpoint_written(place.step, size, seconds, time.time())
        log.info("checkpoint of step %d: %d bytes in %.2f s", place.step, size, seconds)

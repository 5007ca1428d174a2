"""Learned steps on their way to the brokers: each is published only when it is committed.

Exactly once: a thread commits while the loop decodes and learns the next step. At least once: in the loop itself.
"""

from __future__ import annotations

import math
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from prototide.service import failpoints, journal
from prototide.service.broker import Output, Sink
from prototide.service.journal import Heartbeat, Step

WAIT_SECONDS = 0.2
MOST_WAITING_BYTES = 64 * 2**20  # of steps that share a transaction
HEARTBEAT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A learned step: what to send, and its journal record (None: there is no journal)."""

    number: int
    outputs: Sequence[Output]
    entry: Step | None

    @property
    def size(self) -> int:
        """Bytes of the values."""
        return sum(len(output.value) for output in self.outputs)


@dataclass(frozen=True, slots=True)
class Committed:
    """A step that happened: `journal` is the offset behind its record."""

    number: int
    journal: int | None
    seconds: float  # that sending and committing took
    at: float  # unix time


class Delivering(Protocol):
    """Where the worker hands its steps to; `Transactor` or `Direct`."""

    def submit(self, delivery: Delivery, turned: Callable[[], object]) -> None:
        """Takes a step; may wait for earlier ones, calling `turned` now and then."""

    def is_free(self) -> bool:
        """Whether a step would be on its way at once."""

    def committed(self) -> list[Committed]:
        """The steps committed since it was asked last, in order; raises ServiceError when one cannot be."""

    def finish(self, turned: Callable[[], object]) -> None:
        """Returns when every step is committed."""


class Direct:
    """At least once: returns from `submit` when every output is acknowledged."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._committed: list[Committed] = []

    def submit(self, delivery: Delivery, turned: Callable[[], object]) -> None:
        """Sends the step's outputs."""
        started = time.perf_counter()
        self._sink.deliver(delivery.outputs)
        self._committed.append(Committed(delivery.number, None, time.perf_counter() - started, time.time()))

    def is_free(self) -> bool:
        """Always: nothing is ever waiting."""
        return True

    def committed(self) -> list[Committed]:
        """The steps sent since it was asked last."""
        done, self._committed = self._committed, []
        return done

    def finish(self, turned: Callable[[], object]) -> None:
        """Nothing is left to send."""


class TransactionSink(Protocol):
    """What commits; `transactions.TransactionalSink`."""

    def commit(self, outputs: Sequence[Output], journal: Sequence[Output]) -> list[int]:
        """One transaction; the offsets of the journal's records."""


class Transactor:
    """Exactly once: a thread that commits steps in order, and heartbeats while there are none.

    With `interval_seconds` 0 each step is a transaction of its own, else those of an interval share one. At most one
    transaction is open and one is being filled; `submit` waits when both are full.
    """

    def __init__(self, sink: TransactionSink, topic: str, instance: str, interval_seconds: float) -> None:
        """`topic`: of the journal."""
        self._sink = sink
        self._topic = topic
        self._instance = instance
        self._interval_seconds = interval_seconds
        self._changed = threading.Condition()
        self._waiting: deque[Delivery] = deque()
        self._waiting_bytes = 0
        self._first_at = 0.0  # when the oldest waiting step came
        self._done: list[Committed] = []
        self._failed: BaseException | None = None
        self._busy = self._draining = self._closing = False
        self._thread = threading.Thread(target=self._run, name="transactions", daemon=True)

    def start(self) -> None:
        """Begins to commit."""
        self._thread.start()

    def submit(self, delivery: Delivery, turned: Callable[[], object]) -> None:
        """Takes a step; waits while there is no room."""
        self._wait_until(self._has_room, turned)
        with self._changed:
            if not self._waiting:
                self._first_at = time.monotonic()
            self._waiting.append(delivery)
            self._waiting_bytes += delivery.size
            self._changed.notify_all()

    def is_free(self) -> bool:
        """Whether no step of a transaction of its own is being committed, or waits for that."""
        return self._interval_seconds > 0 or not (self._busy or self._waiting) or self._failed is not None

    def committed(self) -> list[Committed]:
        """The steps committed since it was asked last."""
        with self._changed:
            done, self._done = self._done, []
            if not done and self._failed is not None:
                raise self._failed
        return done

    def finish(self, turned: Callable[[], object]) -> None:
        """Returns when every step is committed; whatever the interval."""
        with self._changed:
            self._draining = True
            self._changed.notify_all()
        self._wait_until(lambda: not self._waiting and not self._busy, turned)
        self._draining = False

    def close(self, seconds: float) -> None:
        """Forgets what is not committed; waits that long for the thread to notice."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        if self._thread.is_alive():
            self._thread.join(seconds)

    def _has_room(self) -> bool:
        return not self._waiting if self._interval_seconds == 0 else self._waiting_bytes < MOST_WAITING_BYTES

    def _wait_until(self, condition: Callable[[], bool], turned: Callable[[], object]) -> None:
        while True:
            with self._changed:
                met = self._changed.wait_for(lambda: self._failed is not None or condition(), WAIT_SECONDS)
                if self._failed is not None:
                    raise self._failed
            if met:
                return
            turned()

    # --- the thread ---

    def _run(self) -> None:
        try:
            while (group := self._next_group()) is not None:
                self._commit(group)
                with self._changed:
                    self._busy = False
                    self._changed.notify_all()
        except BaseException as failed:  # the loop raises it
            with self._changed:
                self._failed = failed
                self._changed.notify_all()

    def _next_group(self) -> list[Delivery] | None:
        """The steps of the next transaction; none: a heartbeat is due; None: closing."""
        heartbeat_at = time.monotonic() + HEARTBEAT_SECONDS
        with self._changed:
            while not self._closing:
                now = time.monotonic()
                due = self._first_at + self._interval_seconds if self._waiting else math.inf
                if self._waiting and (now >= due or self._draining or self._waiting_bytes >= MOST_WAITING_BYTES):
                    return self._take_group()
                if now >= heartbeat_at:  # also while steps wait for a long interval: the owner is alive
                    self._busy = True
                    return []
                self._changed.wait(min(due, heartbeat_at) - now)
        return None

    def _take_group(self) -> list[Delivery]:
        group = [self._waiting.popleft() for _ in range(1 if self._interval_seconds == 0 else len(self._waiting))]
        self._waiting_bytes = sum(each.size for each in self._waiting)
        self._busy = True
        self._changed.notify_all()
        return group

    def _commit(self, group: Sequence[Delivery]) -> None:
        """One transaction: predictions and dead letters of the steps, then their journal records."""
        started = time.perf_counter()
        entries: list[journal.Entry] = [each.entry for each in group if each.entry is not None]
        if not group:
            entries = [Heartbeat(self._instance, time.time_ns() // 1_000_000)]
        records = [Output(self._topic, 0, None, journal.encode(entry), ()) for entry in entries]
        offsets = self._sink.commit([output for each in group for output in each.outputs], records)
        seconds, at = time.perf_counter() - started, time.time()
        if not group:
            failpoints.reached("heartbeat")
            return
        with self._changed:
            self._done += [
                Committed(each.number, offset + 1, seconds, at) for each, offset in zip(group, offsets, strict=True)
            ]

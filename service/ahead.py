"""Where records wait, the next step is read and decoded while the last one is learned: its kernels need no GIL."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from prototide.service.gathering import Gatherer, Taken

WAIT_SECONDS = 0.2


class Ahead:
    """A gatherer, and at most one step that a thread of its own gathers ahead.

    Only behind a full step, when more records are likely to wait: a step that closes by its age had better hold what
    comes until the worker wants it.
    """

    def __init__(self, gatherer: Gatherer) -> None:
        self._gatherer = gatherer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="gathering")
        self._next: Future[tuple[list[Taken], float]] | None = None

    def gather(self, may_close: Callable[[], bool], turned: Callable[[], object]) -> tuple[list[Taken], float]:
        """The next step, as `Gatherer.gather` returns it; `turned` is called now and then while it is waited for."""
        if self._next is None:
            return self._gatherer.gather(may_close)
        while True:
            try:
                found = self._next.result(WAIT_SECONDS)
            except TimeoutError:
                turned()
            else:
                self._next = None
                return found

    def begin_next(self) -> None:
        """Begins to gather the step after the one that was just gathered, if that one was full."""
        if self._gatherer.was_full:
            self._next = self._thread.submit(self._gatherer.gather)

    def close(self) -> None:
        """Returns when nothing is being gathered any more; forgets what was."""
        self._thread.shutdown()

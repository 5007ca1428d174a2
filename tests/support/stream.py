"""A stream in memory that behaves as the brokers do, and a learner small enough to reason about."""

from __future__ import annotations

import copy
import json
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from prototide.core import Learned, LearnStats
from prototide.service.broker import Output, Record
from prototide.service.delivering import Committed, Delivery
from prototide.service.errors import RestartMayHelp
from prototide.service.journal import Step
from prototide.service.wire import encode_batch


@dataclass
class MemoryStream:
    """A source and a sink; records wait in the order of arrival."""

    waiting: deque[Record] = field(default_factory=deque)
    delivered: list[Output] = field(default_factory=list)
    ends: Counter[int] = field(default_factory=Counter)  # partition -> next offset to be written
    brokers_away: bool = False
    slow: bool = False  # a step is committed only when the next one has come
    journal: list[Step] = field(default_factory=list)
    undecided: list[Committed] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)  # how many records each consume wanted

    def send(self, value: bytes | None, partition: int = 0, key: bytes | None = None, **more: Any) -> Record:
        offset = self.ends[partition]
        record = Record(
            "train", partition, offset, more.get("timestamp_ms", 1_000), key, value, more.get("headers", ())
        )
        self.ends[partition] += 1
        self.waiting.append(record)
        return record

    def poll(self, timeout: float) -> Record | None:
        return self.waiting.popleft() if self.waiting else None

    def consume(self, most: int, timeout: float) -> list[Record]:
        self.asked.append(most)
        return [self.waiting.popleft() for _ in range(min(most, len(self.waiting)))]

    def lag(self, positions: Mapping[int, int]) -> dict[tuple[str, int], int]:
        return {("train", partition): self.ends[partition] - offset for partition, offset in positions.items()}

    def submit(self, delivery: Delivery, turned: Callable[[], object]) -> None:
        if self.brokers_away:
            raise RestartMayHelp("not delivered", "start again")
        self.delivered += delivery.outputs
        assert delivery.entry is not None
        self.journal.append(delivery.entry)
        self.undecided.append(Committed(delivery.number, 10 + len(self.journal), 0.0, 1.0))

    def is_free(self) -> bool:
        return True

    def committed(self) -> list[Committed]:
        if self.slow and len(self.undecided) < 2:
            return []
        done, self.undecided = self.undecided, []
        return done

    def finish(self, turned: Callable[[], object]) -> None:
        self.slow = False

    def to(self, topic: str) -> list[Output]:
        return [output for output in self.delivered if output.topic == topic]


class LastLabel:
    """Predicts for every row the label that it learned last in an earlier call."""

    def __init__(self, last: Any = None, rows: int = 0) -> None:
        self.last, self.rows = last, rows
        self.calls: list[tuple[int, int]] = []  # rows, columns
        self.nbytes = 8

    def learn(self, X: Any, y: Any, sample_weight: Any = None, top_k: int = 0) -> Learned:
        n = X.shape[0]
        self.calls.append(X.shape)
        predicted = self.last
        known = [label for label in y or [] if label is not None]
        if known:
            self.last, self.rows = known[-1], self.rows + len(known)
        return Learned(
            labels=[predicted] * n,
            scores=np.full(n, 0.5, np.float32),
            prototypes=np.full(n, -1 if predicted is None else 7, np.int64),
            stats=_stats(len(known)),
            top_labels=[[predicted] + [None] * (top_k - 1)] * n if top_k else None,
            top_probs=np.tile(np.eye(1, top_k, dtype=np.float32), (n, 1)) if top_k else None,
        )

    def moved_classes(self, n: int) -> list[tuple[Any, float]]:
        return [(self.last, 0.25)][:n]

    def snapshot_room(self) -> list[Any]:
        return []

    def snapshot(self, room: Any = ()) -> LastLabel:
        return copy.deepcopy(self)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"rows": np.array([self.rows])}, {"last": json.dumps(self.last)}


def _stats(rows: int) -> LearnStats:
    return LearnStats(
        rows=rows,
        shift=0.0,
        shift_max=0.0,
        active_centroids=1,
        classes=1,
        new_classes=0,
        born=0,
        pruned=0,
        num_merged=0,
    )


def batch(labels: Sequence[Any], columns: int = 8, **more: Any) -> bytes:
    """A train record with one non-zero a row."""
    n = len(labels)
    X = sparse.csr_matrix((np.ones(n, np.float32), (np.arange(n), np.arange(n) % columns)), shape=(n, columns))
    return encode_batch(X, labels, **more)


def until(condition: Callable[[], Any], seconds: float = 30.0, every: float = 0.02) -> Any:
    """Waits for a condition, looking every so many seconds; what it gave. Fails after `seconds`."""
    import time

    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(every)
    return found

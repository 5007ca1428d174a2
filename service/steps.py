"""What one step did, as plain data: the worker makes it; metrics, drift and the terminal view read it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class StepStats:
    """One micro-batch that was predicted, learned and delivered; the last fields are known when it is."""

    number: int  # of the step, those that only predict included
    trained: int  # training steps of the model, this one included
    records: int  # records of the train topic, dead letters included
    dead_letters: Mapping[str, int]  # reason -> records
    rows: int  # rows predicted
    rows_learned: int  # labelled, non-empty, weight above 0
    rows_unknown: int  # answered None
    errors: NDArray[np.bool_]  # one per row with a truth, in the order learned: True where the prediction was wrong
    model: Mapping[str, float]  # the classifier's statistics: shift, active_centroids, classes, ...
    class_shift: Mapping[str, float]  # label -> shift, the classes that moved most
    model_bytes: int
    decode_seconds: float
    fit_seconds: float  # one scoring serves predicting and learning
    journal: int | None = None  # offset behind its journal record
    commit_seconds: float = 0.0  # produce, delivery by the broker
    step_seconds: float = 0.0
    latency_seconds: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))  # record's timestamp to delivery
    lag: Mapping[tuple[str, int], int] = field(default_factory=dict)  # (topic, partition) -> records still to come

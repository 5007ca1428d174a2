"""Prequential accuracy over `memory_budget_bytes`: what a model loses as it may hold less.

Budgets are shares of what a free model grows to, beyond the tables of its features, which no budget can make smaller.

    python -m tests.benchmarks.budget --sets clinc150,20newsgroups
"""

from __future__ import annotations

import math
import sys

import numpy as np

from prototide.core import FastKMeansClassifier
from prototide.core.engines.budget import CONTENT
from tests.benchmarks import report
from tests.benchmarks.data import DataSet, load

SHARES = (1.0, 0.7, 0.5, 0.35, 0.25, 0.15, 0.1)
BATCH = 256
FEATURE_BYTES = 48  # of the tables


def run(data: DataSet, budget: int | None) -> tuple[FastKMeansClassifier, float]:
    """One pass, each row predicted just before it is learned: the model, and the share that was right."""
    model, right, seen = FastKMeansClassifier(memory_budget_bytes=budget), 0, 0
    for X, y in data.batches(BATCH):
        labels = model.learn(X, y).labels
        if seen:  # the first batch is not judged
            right += int(np.sum(np.array(labels, object) == y.astype(object)))
        seen += len(y)
    return model, right / (seen - BATCH)


def curve(data: DataSet) -> list[report.Record]:
    """One line for each budget, the free model first."""
    free, accuracy = run(data, None)
    tables = FEATURE_BYTES * data.X.shape[1]
    content = max(0, free.nbytes - tables)
    lines = [_line(data.name, None, free, accuracy)]
    for share in SHARES:
        budget = math.ceil((tables + share * content) / CONTENT)
        lines.append(_line(data.name, budget, *run(data, budget)))
        print(f"{data.name}: {budget} bytes, {lines[-1]['accuracy']:.4f}", file=sys.stderr, flush=True)
    return lines


def _line(name: str, budget: int | None, model: FastKMeansClassifier, accuracy: float) -> report.Record:
    return {
        "set": name,
        "budget MB": None if budget is None else budget / 2**20,
        "model MB": model.nbytes / 2**20,
        "entries": int(model.state()[0]["engine.entry.slot"].size),
        "K": len(model.prototypes_),
        "accuracy": accuracy,
    }


def main() -> None:
    """The program."""
    chosen = report.parser(__doc__, ("clinc150", "20newsgroups")).parse_args()
    results = [line for name in chosen.sets for line in curve(report.or_exit(load, name, chosen.data))]
    report.show("accuracy over memory budget", results)
    report.write(chosen.json, "budget", chosen, results)


if __name__ == "__main__":
    main()

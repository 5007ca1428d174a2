"""How cost grows: one curve for each thing that can get large, on the headline workload (separable).

    classes   K from 1,500 to 150,000 prototypes, 4 rows each, k_init=1
    features  D from 10,000 to 1,000,000
    nonzeros  rows of some 10 to 300 non-zeros
    batch     calls of 1 to 10,000 rows
    threads   1, 2, ... of this machine
    rows      memory of a model of 150 prototypes over 3,000 to 300,000 rows (20, 67, 200, 667 and 2,000 a prototype;
              300,000, 1 M and 3 M rows are 20, 67 and 200 for 15,000), by lambda, truncation and budget

The model of a curve is filled with lambda 0, which is quick, and measured with the default.

    python -m tests.benchmarks.growth --curves classes,batch --json growth.json
"""

from __future__ import annotations

import argparse
import resource
import sys
from pathlib import Path
from typing import Any

import numba
import numpy as np

from prototide.core import FastKMeansClassifier
from tests.benchmarks import report
from tests.benchmarks.timing import median_ms, rate
from tests.benchmarks.workload import SEPARABLE, Size, make, pieces

FEATURES, MODES = 100_000, 3
CLASSES = 1_500  # of the curves that do not vary them: 4,500 prototypes
ROWS_EACH = 4  # a prototype
ASKED = 2048
MARKS = (3_000, 10_000, 30_000, 100_000, 300_000)  # rows at which the curve over rows looks


def filled(size: Size, tokens: int = 80) -> FastKMeansClassifier:
    """A model that has seen a few rows of every mode, each a class of its own, and corrects from now on."""
    model = FastKMeansClassifier(lambda_penalty=0.0, k_init=1)
    rows = ROWS_EACH * size[1] * size[2]
    for chunk in pieces(rows, size, SEPARABLE, tokens=tokens):
        model.fit_batch(chunk.X, chunk.mode)
    return model.set_params(lambda_penalty=0.1)


def costs(model: FastKMeansClassifier, size: Size, tokens: int = 80) -> report.Record:
    """Microseconds a row, and what is held."""
    asked = make(ASKED, *size, SEPARABLE, seed=5, tokens=tokens)
    before = 1e6 / rate(lambda: model.set_params(lambda_penalty=0.0).predict(asked.X), ASKED)
    model.set_params(lambda_penalty=0.1)
    learned = 1e6 / rate(lambda: model.learn(asked.X, asked.mode), ASKED, 2)
    return {
        "predict us/row": before,
        "learn us/row": learned,
        "predict us/row afterwards": 1e6 / rate(lambda: model.predict(asked.X), ASKED),
        "model MB": model.nbytes / 2**20,
        "peak RSS MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def by_classes(most: int) -> list[report.Record]:
    found = []
    for K in (1_500, 5_001, 15_000, 50_001, 150_000):
        if most >= K:
            size = (FEATURES, K // MODES, MODES)
            found.append({"K": K} | costs(filled(size), size))
            _tell(found[-1])
    return found


def by_features(_: int) -> list[report.Record]:
    found = []
    for features in (10_000, 30_000, 100_000, 300_000, 1_000_000):
        size = (features, CLASSES, MODES)
        found.append({"D": features} | costs(filled(size), size))
        _tell(found[-1])
    return found


def by_nonzeros(_: int) -> list[report.Record]:
    found = []
    for tokens in (10, 30, 100, 300):
        size = (FEATURES, CLASSES, MODES)
        sample = make(256, *size, SEPARABLE, tokens=tokens)
        about: report.Record = {"non-zeros a row": sample.X.nnz / 256}
        found.append(about | costs(filled(size, tokens), size, tokens))
        _tell(found[-1])
    return found


def by_batch(_: int) -> list[report.Record]:
    size = (FEATURES, CLASSES, MODES)
    model, found = filled(size), []
    asked = make(10_000, *size, SEPARABLE, seed=5)
    for rows in (1, 10, 100, 1_000, 10_000):
        calls = max(3, min(50, 10_000 // rows))
        X = [asked.X[i * rows % 10_000 : i * rows % 10_000 + rows] for i in range(calls)]
        y = [asked.mode[i * rows % 10_000 : i * rows % 10_000 + rows] for i in range(calls)]
        predicted = median_ms(lambda i, X=X: model.predict(X[i]), calls)
        learned = median_ms(lambda i, X=X, y=y: model.learn(X[i], y[i]), calls)
        found.append({
            "rows a call": rows, "predict ms a call": predicted, "predict us/row": 1000 * predicted / rows,
            "learn ms a call": learned, "learn us/row": 1000 * learned / rows,
        })  # fmt: skip
        _tell(found[-1])
    return found


def by_threads(_: int) -> list[report.Record]:
    size = (FEATURES, CLASSES, MODES)
    model, found = filled(size), []
    threads, most = 1, numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    while threads <= most:
        found.append({"threads": threads} | costs(model.set_params(n_threads=threads), size))
        _tell(found[-1])
        threads *= 2
    return found


def by_rows(_: int) -> list[report.Record]:
    size, found = (FEATURES, 50, MODES), []
    asked = make(ASKED, *size, SEPARABLE, seed=5)
    kinds: list[dict[str, Any]] = [
        {"lambda_penalty": 0.0}, {}, {"truncation_threshold": 1e-4}, {"truncation_threshold": 1e-2},
        {"memory_budget_bytes": 16 << 20},
    ]  # fmt: skip
    for parameters in kinds:
        model, seen = FastKMeansClassifier(k_init=1, **parameters), 0
        for chunk in pieces(MARKS[-1], size, SEPARABLE):
            model.fit_batch(chunk.X, chunk.mode)
            before, seen = seen, seen + len(chunk.mode)
            for mark in MARKS:
                if before < mark <= seen:
                    about: report.Record = {"parameters": str(parameters) if parameters else "defaults", "rows": seen}
                    entries = int(model.state()[0]["engine.entry.slot"].size)
                    right = float(np.mean(model.predict(asked.X) == asked.mode))
                    found.append(about | {"model MB": model.nbytes / 2**20, "entries": entries, "accuracy": right})
                    _tell(found[-1])
    return found


def _tell(line: report.Record) -> None:
    text = ", ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}" for name, value in line.items()
    )
    print(text, file=sys.stderr, flush=True)


CURVES = {
    "classes": by_classes, "features": by_features, "nonzeros": by_nonzeros, "batch": by_batch, "threads": by_threads,
    "rows": by_rows,
}  # fmt: skip


def main() -> None:
    """The program."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--curves", type=report.names(CURVES), default=list(CURVES))
    options.add_argument("--most-prototypes", type=int, default=150_000, help="end of the curve over classes")
    options.add_argument("--json", type=Path, help="file for the results")
    chosen = options.parse_args()
    results: dict[str, list[report.Record]] = {}
    for name in chosen.curves:
        results[name] = CURVES[name](chosen.most_prototypes)
        report.show(name, results[name], 3)
        report.write(chosen.json, "growth", chosen, results)


if __name__ == "__main__":
    main()

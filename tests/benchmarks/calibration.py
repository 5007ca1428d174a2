"""Calibration: does a class predicted with probability p turn out right in a share p of the rows?

Expected calibration error, prequential: batches of 256 rows, 15 equally wide bins of the best class's probability, mean
of |share of rows right - mean probability| weighted by the bins' rows. Both forms of `predict_proba`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks import report
from tests.benchmarks.data import DataSet, load
from tests.benchmarks.peers import Ours
from tests.benchmarks.prequential import BATCH_ROWS

BINS = 15
SOFT_TYPES = ("linear", "softmax")


def expected_calibration_error(probability: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Of (n,) probabilities and whether each prediction was right."""
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    gap = np.bincount(bins, right, BINS) - np.bincount(bins, probability, BINS)
    return float(np.abs(gap).sum() / len(right))


def predictions(data: DataSet, soft_type: str, advance: Callable[[], Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Probability of the best class, and whether it was right, of all rows after the first batch."""
    model = Ours(data, soft_type=soft_type).model
    probability, right = [], []
    for number, (X, y) in enumerate(data.batches(BATCH_ROWS)):
        if number:
            labels, probs = model.predict_top(X, 1)
            probability.append(probs[:, 0].astype(np.float64))
            right.append(np.array([label for (label,) in labels], object) == y)
        model.fit_batch(X, y)
        advance()
    return np.concatenate(probability), np.concatenate(right)


def main() -> None:
    """The program."""
    chosen = report.parser(__doc__).parse_args()
    results: list[report.Record] = []
    with report.progress() as bar:
        for name in chosen.sets:
            data = report.or_exit(load, name, chosen.data)
            row: report.Record = {"set": name}
            for soft_type in SOFT_TYPES:
                task = bar.add_task(f"{name} {soft_type}", total=-(-len(data.y) // BATCH_ROWS))
                probability, right = predictions(data, soft_type, partial(bar.advance, task))
                bar.remove_task(task)
                half = len(right) // 2
                row |= {
                    f"{soft_type} ECE": expected_calibration_error(probability, right),
                    f"{soft_type} ECE, 2nd half": expected_calibration_error(probability[half:], right[half:]),
                    f"{soft_type} mean probability": float(probability.mean()),
                    f"{soft_type} accuracy": float(right.mean()),
                }
            results.append(row)
    report.show("expected calibration error", results)
    report.write(chosen.json, "calibration", chosen, results)


if __name__ == "__main__":
    main()

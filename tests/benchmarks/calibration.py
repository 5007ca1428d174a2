"""Calibration: does a class predicted with probability p turn out right in a share p of the rows?

Expected calibration error, prequential: batches of 256 rows, 15 equally wide bins of the best class's probability, mean
of |share of rows right - mean probability| weighted by the bins' rows. Both forms of `predict_proba`, each as `learn`
answers (what the service sends) and as `predict_top` answers for the whole batch before any of its rows is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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

Predicted = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""(n,) probability of the best class, and whether it was right."""


def expected_calibration_error(probability: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Of (n,) probabilities and whether each prediction was right."""
    bins = np.minimum((probability * BINS).astype(int), BINS - 1)
    gap = np.bincount(bins, right, BINS) - np.bincount(bins, probability, BINS)
    return float(np.abs(gap).sum() / len(right))


def predictions(data: DataSet, soft_type: str, advance: Callable[[], Any]) -> dict[str, Predicted]:
    """Probability of the best class, and whether it was right, of all rows after the first batch."""
    model = Ours(data, soft_type=soft_type).model
    parts: dict[str, list[Predicted]] = {"learn": [], "predict": []}
    for number, (X, y) in enumerate(data.batches(BATCH_ROWS)):
        if number:
            parts["predict"].append(_predicted(*model.predict_top(X, 1), y))
        learned = model.learn(X, y, top_k=1)
        assert learned.top_labels is not None
        assert learned.top_probs is not None
        if number:
            parts["learn"].append(_predicted(learned.top_labels, learned.top_probs, y))
        advance()
    return {
        way: (np.concatenate([p for p, _ in each]), np.concatenate([r for _, r in each])) for way, each in parts.items()
    }


def _predicted(labels: Sequence[Sequence[Any]], probs: NDArray[np.float32], y: NDArray[Any]) -> Predicted:
    return probs[:, 0].astype(np.float64), np.array([label for (label,) in labels], object) == y


def main() -> None:
    """The program."""
    chosen = report.parser(__doc__).parse_args()
    results: list[report.Record] = []
    with report.progress() as bar:
        for name in chosen.sets:
            data = report.or_exit(load, name, chosen.data)
            for soft_type in SOFT_TYPES:
                task = bar.add_task(f"{name} {soft_type}", total=-(-len(data.y) // BATCH_ROWS))
                predicted = predictions(data, soft_type, partial(bar.advance, task))
                bar.remove_task(task)
                row: report.Record = {"set": name, "soft_type": soft_type}
                for way, (probability, right) in predicted.items():
                    row[f"{way}: ECE"] = expected_calibration_error(probability, right)
                    row[f"{way}: mean probability"] = float(probability.mean())
                    row[f"{way}: accuracy"] = float(right.mean())
                results.append(row)
    report.show("expected calibration error", results)
    report.write(chosen.json, "calibration", chosen, results)


if __name__ == "__main__":
    main()

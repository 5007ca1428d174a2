"""Unknown rows: CLINC150's out-of-scope rows against its test rows, by scores of a model that learned in-scope rows.

AUROC of several measures of how well a row is known, and how many rows fall below a low quantile of the scores that
rightly predicted rows had just before they were learned ("prequential"): in scope (false alarms), out of scope (found).
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from prototide.core import FastKMeansClassifier
from tests.benchmarks import report
from tests.benchmarks.data import SHUFFLE_SEED, load_files

BATCH_ROWS = 256
QUANTILES = (0.01, 0.05)
MEAN_PRIOR_ROWS = 10  # a prototype's mean score starts as that of all rows, as if seen so often
OUT_OF_SCOPE = ("oos_train.tsv.gz", "oos_val.tsv.gz", "oos_test.tsv.gz")


@dataclass(frozen=True)
class History:
    """Scores of rightly predicted rows just before they were learned, and the prototypes that won."""

    scores: NDArray[np.float64]  # (n,)
    prototypes: NDArray[np.int64]  # (n,)

    def prototype_means(self, prototypes: NDArray[np.int64]) -> NDArray[np.float64]:
        """(m,) mean score of the rows that each of `prototypes` won, drawn to the mean of all."""
        overall = float(self.scores.mean())
        sums: defaultdict[int, float] = defaultdict(lambda: MEAN_PRIOR_ROWS * overall)
        counts: defaultdict[int, int] = defaultdict(lambda: MEAN_PRIOR_ROWS)
        for prototype, score in zip(self.prototypes.tolist(), self.scores.tolist(), strict=True):
            sums[prototype] += score
            counts[prototype] += 1
        return np.array([sums[p] / counts[p] for p in prototypes.tolist()])


def learned(model: FastKMeansClassifier, X: sp.csr_matrix, y: NDArray[Any]) -> History:
    """Learns the rows, shuffled, in batches."""
    order = np.random.default_rng(SHUFFLE_SEED).permutation(len(y))
    scores, prototypes = [], []
    for first in range(0, len(y), BATCH_ROWS):
        rows = order[first : first + BATCH_ROWS]
        before = model.learn(X[rows], y[rows])
        right = np.array(before.labels, object) == y[rows]
        scores.append(before.scores[right])
        prototypes.append(before.prototypes[right])
    return History(np.concatenate(scores).astype(np.float64), np.concatenate(prototypes))


def measures(model: FastKMeansClassifier, X: sp.csr_matrix, history: History) -> dict[str, NDArray[np.float64]]:
    """(n,) each: the higher, the better known is the row."""
    predicted = model.learn(X, None, top_k=1)
    assert predicted.top_probs is not None
    ordered = np.sort(model.decision_function(X), axis=1)
    score = predicted.scores.astype(np.float64)
    mean = history.prototype_means(predicted.prototypes)
    return {
        "winning score": score,
        "winning score - mean of its prototype": score - mean,
        "winning score - half that mean": score - mean / 2,
        "margin over the second class": ordered[:, -1] - ordered[:, -2],
        "top probability": predicted.top_probs[:, 0].astype(np.float64),
    }


def evaluated(data: Path, train: tuple[str, ...], parameters: dict[str, Any]) -> dict[str, Any]:
    """AUROC of each measure, accuracy on the test rows, shares below each quantile."""
    folder = data / "clinc150"
    model = FastKMeansClassifier(n_threads=1, **parameters)
    history = learned(model, *load_files([folder / name for name in train]))
    X, y = load_files([folder / "test.tsv.gz"])
    unknown, _ = load_files([folder / name for name in OUT_OF_SCOPE])
    inside, outside = measures(model, X, history), measures(model, unknown, history)
    known = np.repeat([1, 0], [X.shape[0], unknown.shape[0]])
    limits = {level: np.quantile(history.scores, level) for level in QUANTILES}
    return {
        "accuracy": float(np.mean(model.predict(X) == y)),
        "auroc": {name: float(roc_auc_score(known, np.append(inside[name], outside[name]))) for name in inside},
        "below_quantile": {
            str(level): {
                "in scope": float(np.mean(inside["winning score"] < limit)),
                "out of scope": float(np.mean(outside["winning score"] < limit)),
            }
            for level, limit in limits.items()
        },
    }


def main() -> None:
    """The program."""
    options = report.parser(__doc__, sets=())
    chosen = options.parse_args()
    runs: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
        "train": (("train.tsv.gz",), {}),
        "train + val": (("train.tsv.gz", "val.tsv.gz"), {}),
        "train, lambda_penalty=0": (("train.tsv.gz",), {"lambda_penalty": 0.0}),
    }
    results = {}
    with report.progress() as bar:
        task = bar.add_task("novelty", total=len(runs))
        for name, (train, parameters) in runs.items():
            results[name] = report.or_exit(evaluated, chosen.data, train, parameters)
            bar.advance(task)
    aurocs = [{"learned": name, "accuracy": result["accuracy"], **result["auroc"]} for name, result in results.items()]
    report.show("CLINC150: AUROC of in-scope against out-of-scope rows", aurocs)
    shares: list[report.Record] = [
        {"learned": name, "quantile of prequential scores": level, **share}
        for name, result in results.items()
        for level, share in result["below_quantile"].items()
    ]
    report.show("CLINC150: rows below the quantile", shares)
    report.write(chosen.json, "novelty", chosen, results)


if __name__ == "__main__":
    main()

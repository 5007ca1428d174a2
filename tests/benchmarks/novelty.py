"""Unknown rows: CLINC150's out-of-scope rows against its test rows, by a model that learned in-scope rows.

AUROC of the classifier's own `novelty_scores` and of simpler measures of how well a row is known; and the share of
rows that ``novelty`` answers unknown: in scope (false alarms), out of scope (found).
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
NOVELTY: tuple[float | str, ...] = ("auto", 0.05)
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


@dataclass(frozen=True)
class Rows:
    """What is learned, test rows of the same classes with their labels, and rows of none."""

    X: sp.csr_matrix
    y: NDArray[Any]
    inside: sp.csr_matrix
    truth: NDArray[Any]
    outside: sp.csr_matrix

    def auroc(self, inside: NDArray[np.float64], outside: NDArray[np.float64]) -> float:
        """Of a measure that is higher for rows that are known."""
        known = np.repeat([1, 0], [self.inside.shape[0], self.outside.shape[0]])
        return float(roc_auc_score(known, np.append(inside, outside)))


def load_rows(data: Path, train: tuple[str, ...]) -> Rows:
    """CLINC150 from its folder in `data`."""
    folder = data / "clinc150"
    X, y = load_files([folder / name for name in train])
    inside, truth = load_files([folder / "test.tsv.gz"])
    outside, _ = load_files([folder / name for name in OUT_OF_SCOPE])
    return Rows(X, y, inside, truth, outside)


def evaluated(rows: Rows, parameters: dict[str, Any]) -> dict[str, Any]:
    """Accuracy on the test rows, AUROC of each measure, shares answered unknown."""
    plain = FastKMeansClassifier(n_threads=1, **parameters)
    history = learned(plain, rows.X, rows.y)
    inside, outside = measures(plain, rows.inside, history), measures(plain, rows.outside, history)
    auroc, unknown = {}, {}
    for novelty in NOVELTY:
        model = FastKMeansClassifier(n_threads=1, novelty=novelty, **parameters)
        learned(model, rows.X, rows.y)
        # how novel a row is, so negative for how well it is known
        scores = [-model.novelty_scores(each) for each in (rows.inside, rows.outside)]
        auroc["novelty_scores"] = rows.auroc(scores[0], scores[1])
        flags = [model.predict(each, return_unknown=True)[1] for each in (rows.inside, rows.outside)]
        unknown[str(novelty)] = {"in scope": float(flags[0].mean()), "out of scope": float(flags[1].mean())}
    return {
        "accuracy": float(np.mean(plain.predict(rows.inside) == rows.truth)),
        "auroc": auroc | {name: rows.auroc(inside[name], outside[name]) for name in inside},
        "answered_unknown": unknown,
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
            results[name] = evaluated(report.or_exit(load_rows, chosen.data, train), parameters)
            bar.advance(task)
    aurocs = [{"learned": name, "accuracy": result["accuracy"], **result["auroc"]} for name, result in results.items()]
    report.show("CLINC150: AUROC of in-scope against out-of-scope rows", aurocs)
    shares: list[report.Record] = [
        {"learned": name, "novelty": novelty, **share}
        for name, result in results.items()
        for novelty, share in result["answered_unknown"].items()
    ]
    report.show("CLINC150: answered unknown", shares)
    report.write(chosen.json, "novelty", chosen, results)


if __name__ == "__main__":
    main()

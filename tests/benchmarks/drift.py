"""Drift: how soon a learner recovers from an abrupt change, and what it keeps of classes that it sees no more.

Swap: half-way, the labels of half of the classes are permuted in a cycle. "rows to regain": rows after the swap until
the running mean over 500 rows (all after the swap) reaches 95 % of the accuracy over the 1,000 rows before it; "-" when
the stream ends first.

Halves: first the rows of one half of the classes, then those of the other half. Accuracy on test rows of the first half
after each; "kept" is the second.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from tests.benchmarks import report
from tests.benchmarks.data import SHUFFLE_SEED, SOURCES, DataSet, load, load_files
from tests.benchmarks.peers import Learner, Ours, make_peer, narrowed
from tests.benchmarks.prequential import BATCH_ROWS, correct_rows

SETS = ("clinc150", "20newsgroups")
WINDOW_ROWS = 500
BEFORE_ROWS = 1000
REGAINED = 0.95
LEARNERS: dict[str, Callable[[DataSet], Learner]] = {
    "ours": Ours,
    "ours, half_life=5000": partial(Ours, half_life=5000),
    "ours, half_life=2000": partial(Ours, half_life=2000),
    "pa": partial(make_peer, "pa"),
    "pa+": partial(make_peer, "pa+"),
}


def swapped(data: DataSet) -> DataSet:
    """From the middle on, every second class (in a seeded order) bears the label of the next of them."""
    classes = np.random.default_rng(SHUFFLE_SEED).permutation(np.unique(data.y))
    changed = classes[::2]
    following = dict(zip(changed, np.roll(changed, -1), strict=True))
    y = data.y.copy()
    middle = _middle(data)
    y[middle:] = [following.get(label, label) for label in y[middle:]]
    return DataSet(data.name, data.X, y, data.euclidean)


def _middle(data: DataSet) -> int:
    return len(data.y) // BATCH_ROWS // 2 * BATCH_ROWS


def recovery(right: NDArray[np.bool_], swap: int) -> dict[str, float | int | None]:
    """Accuracy before row `swap` of `right`, in the first window after it, at the end, and the rows to regain it."""
    before = float(right[swap - BEFORE_ROWS : swap].mean())
    sums = np.cumsum(np.append(0, right[swap:]))
    means = (sums[WINDOW_ROWS:] - sums[:-WINDOW_ROWS]) / WINDOW_ROWS
    regained = np.flatnonzero(means >= REGAINED * before)
    return {
        "before": before,
        "first 500 after": float(means[0]),
        "last 500": float(means[-1]),
        "rows to regain": int(regained[0]) + WINDOW_ROWS if regained.size else None,
    }


def halves(data: Path, name: str, make: Callable[[DataSet], Learner]) -> dict[str, float]:
    """Accuracy on test rows of the first half of the classes, after it was learned and after the other half too."""
    source = SOURCES[name]
    X, y, test, truth = _train_and_test([data / source.folder / file for file in source.files])
    classes = np.random.default_rng(SHUFFLE_SEED).permutation(np.unique(y))
    first = classes[: len(classes) // 2]
    order = np.random.default_rng(SHUFFLE_SEED).permutation(len(y))
    order = order[np.argsort(~np.isin(y[order], first), kind="stable")]
    stream = DataSet(name, X[order], y[order], source.euclidean)
    border = int(np.isin(y, first).sum())
    learner = make(stream)
    in_first = np.isin(truth, first)
    accuracy = []
    for begin, end in ((0, border), (border, len(y))):
        part = DataSet(name, stream.X[begin:end], stream.y[begin:end])
        for rows, labels in part.batches(BATCH_ROWS):
            learner.learn(rows, labels)
        right = learner.predict(test) == truth
        accuracy.append(float(right[in_first].mean()))
    return {"after first half": accuracy[0], "kept": accuracy[1], "second half": float(right[~in_first].mean())}


def _train_and_test(files: list[Path]) -> tuple[sp.csr_matrix, NDArray[Any], sp.csr_matrix, NDArray[Any]]:
    """All files but the last to learn from, the last to test on; only the columns that are used."""
    rows = narrowed(DataSet("", *load_files(files)))
    X, y = rows.X, rows.y
    test_rows = load_files(files[-1:])[1].size
    return X[:-test_rows], y[:-test_rows], X[-test_rows:], y[-test_rows:]


def main() -> None:
    """The program."""
    options = report.parser(__doc__, SETS)
    options.add_argument("--learners", type=report.names(LEARNERS, ";"), default=list(LEARNERS), help="joined by ;")
    chosen = options.parse_args()
    swaps: list[report.Record] = []
    kept: list[report.Record] = []
    with report.progress() as bar:
        for name in chosen.sets:
            if len(SOURCES[name].files) < 2:
                raise SystemExit(f"--sets {name}: it has no test file; drift needs one")
            data = swapped(narrowed(report.or_exit(load, name, chosen.data)))
            for learner in chosen.learners:
                task = bar.add_task(f"{name}, {learner}", total=-(-len(data.y) // BATCH_ROWS))
                right = correct_rows(LEARNERS[learner](data), data, partial(bar.advance, task))
                bar.remove_task(task)
                swaps.append({"set": name, "learner": learner, **recovery(right, _middle(data) - BATCH_ROWS)})
                kept.append({"set": name, "learner": learner, **halves(chosen.data, name, LEARNERS[learner])})
    report.show("label swap half-way", swaps)
    report.show("half of the classes first, then the others: accuracy on test rows", kept)
    report.write(chosen.json, "drift", chosen, {"swap": swaps, "halves": kept})


if __name__ == "__main__":
    main()

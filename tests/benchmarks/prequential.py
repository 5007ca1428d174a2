"""Prequential accuracy: each batch of 256 rows is predicted, then learned; ours against other one-pass learners.

Accuracy counts all rows after the first batch; "last quarter" those of the last quarter of the stream. A "+" behind a
peer's name: with running idf of the rows before the batch (dense sets: standardised columns). Peers know all classes
from the start, ours discovers them.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks import report
from tests.benchmarks.data import DataSet, load
from tests.benchmarks.peers import ALL_PEERS, FAST_PEERS, Learner, Ours, applies, make_peer, narrowed

BATCH_ROWS = 256


def correct_rows(learner: Learner, data: DataSet, advance: Callable[[], Any]) -> NDArray[np.bool_]:
    """Which rows were predicted right, the first batch excepted; `advance` is called after each batch."""
    right: list[NDArray[np.bool_]] = []
    for number, (X, y) in enumerate(data.batches(BATCH_ROWS)):
        if number:
            right.append(np.asarray(learner.predict(X) == y))
        learner.learn(X, y)
        advance()
    return np.concatenate(right)


def measured(learner: Learner, data: DataSet, advance: Callable[[], Any]) -> dict[str, float]:
    """Accuracy over all rows after the first batch and over the last quarter, and seconds."""
    begin = time.perf_counter()
    right = correct_rows(learner, data, advance)
    quarter = right[-(len(data.y) // 4) :]
    seconds = time.perf_counter() - begin
    return {"accuracy": float(right.mean()), "last_quarter": float(quarter.mean()), "seconds": round(seconds, 2)}


def compared(results: dict[str, dict[str, dict[str, float]]], what: str) -> list[report.Record]:
    """One row for each set: ours, the best peer, the difference, all peers."""
    rows: list[report.Record] = []
    for name, result in results.items():
        cells = {learner: cell[what] for learner, cell in result.items()}
        others = {peer: value for peer, value in cells.items() if peer != "ours"}
        best = max(others, key=lambda peer: others[peer]) if others else None
        row: report.Record = {"set": name, "ours": cells.get("ours"), "best peer": best or "-"}
        if best is not None and "ours" in cells:
            row["difference"] = cells["ours"] - cells[best]
        rows.append({**row, **others})
    return report.filled(rows)


def main() -> None:
    """The program."""
    options = report.parser(__doc__)
    options.add_argument(
        "--peers",
        type=report.names(ALL_PEERS),
        default=FAST_PEERS,
        help=f"of {','.join(ALL_PEERS)}; default: without river's",
    )
    options.add_argument("--without-ours", action="store_true", help="peers only")
    chosen = options.parse_args()
    results: dict[str, dict[str, dict[str, float]]] = {}
    with report.progress() as bar:
        for name in chosen.sets:
            data = report.or_exit(load, name, chosen.data)
            learners = [] if chosen.without_ours else ["ours"]
            learners += [peer for peer in chosen.peers if applies(peer, data)]
            narrow = narrowed(data)
            results[name] = {}
            for learner in learners:
                task = bar.add_task(f"{name} {learner}", total=-(-len(data.y) // BATCH_ROWS))
                rows = data if learner == "ours" else narrow
                made = Ours(data) if learner == "ours" else make_peer(learner, rows)
                results[name][learner] = measured(made, rows, partial(bar.advance, task))
                bar.remove_task(task)
    report.show("prequential accuracy", compared(results, "accuracy"))
    report.show("prequential accuracy, last quarter", compared(results, "last_quarter"))
    seconds: list[report.Record] = [
        {"set": name, **{learner: cell["seconds"] for learner, cell in result.items()}}
        for name, result in results.items()
    ]
    report.show("seconds", report.filled(seconds), digits=1)
    report.write(chosen.json, "prequential", chosen, results)


if __name__ == "__main__":
    main()

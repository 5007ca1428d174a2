"""Speed and memory of the CPU engine on the headline workload, beside peers in the same run.

15,000 prototypes (every hidden mode is a class of its own, k_init=1), 100,000 features. Medians over chunks of rows;
machines are noisy, so the ratio to a peer is what counts. Each model runs in a process of its own, so that its peak
memory is its own.

    python -m tests.benchmarks.speed --rows 60000 --topics separable --lambdas 0,0.1
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from prototide.core import FastKMeansClassifier
from tests.benchmarks import report
from tests.benchmarks.workload import HARD, SEPARABLE, make

TOPICS = {"separable": SEPARABLE, "hard": HARD}
CHUNK, QUERIES, SINGLES = 8192, 8192, 300


def rate(work: Callable[[], Any], rows: int, repeats: int = 3) -> float:
    """Median rows/s of ``repeats`` calls, after one that warms up."""
    work()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - started)
    return rows / float(np.median(seconds))


def median_ms(work: Callable[[int], Any], times: int) -> float:
    """Median milliseconds of a call."""
    seconds = []
    for i in range(times):
        started = time.perf_counter()
        work(i)
        seconds.append(time.perf_counter() - started)
    return 1000 * float(np.median(seconds))


def ours(topic: str, lambda_penalty: float, rows: int, classes: int, features: int, modes: int) -> report.Record:
    """All figures of one model: k_init=1, every hidden mode a class."""
    stream = make(rows, features, classes, modes, TOPICS[topic])
    asked = make(QUERIES, features, classes, modes, TOPICS[topic], seed=5)
    FastKMeansClassifier(lambda_penalty=lambda_penalty, k_init=1).learn(stream.X[:512], stream.mode[:512])  # compiles
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = FastKMeansClassifier(lambda_penalty=lambda_penalty, k_init=1)
    learned = []
    for first in range(0, rows, CHUNK):
        started = time.perf_counter()
        done = model.fit_batch(stream.X[first : first + CHUNK], stream.mode[first : first + CHUNK])["rows"]
        learned.append(done / (time.perf_counter() - started))
    last = max(1, len(learned) // 3)
    X, y = asked.X, asked.mode
    return {
        "topic": topic,
        "lambda": lambda_penalty,
        "K": model.fit_batch(X[:0], y[:0])["active_centroids"],
        "predict rows/s": rate(lambda: model.predict(X), QUERIES),
        "predict_top(3) rows/s": rate(lambda: model.predict_top(X, 3), QUERIES),
        "fit_batch rows/s": float(np.median(learned[-last:])),
        "learn rows/s": rate(lambda: model.learn(X, y), QUERIES, 1),
        "predict 1 row ms": median_ms(lambda i: model.predict_top(X[i : i + 1], 1), SINGLES),
        "learn 1 row ms": median_ms(lambda i: model.learn(X[i : i + 1], y[i : i + 1]), SINGLES),
        "model MB": model.nbytes / 2**20,
        "peak RSS MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "RSS before MB": before / 1024,
        "accuracy": float(np.mean(model.predict(X) == y)),
    }


def peers(topic: str, rows: int, classes: int, features: int, modes: int) -> list[report.Record]:
    """Others on the same queries: top-1 of sparse rows against K sparse centroids, and an incremental linear model."""
    stream = make(rows, features, classes, modes, TOPICS[topic])
    asked = make(2048, features, classes, modes, TOPICS[topic], seed=5)
    found: list[report.Record] = []
    ones = sp.csr_matrix((np.ones(rows, np.float32), (stream.mode, np.arange(rows))), (classes * modes, rows))
    centroids = (ones @ stream.X).tocsr()
    norms = np.sqrt(np.asarray(centroids.multiply(centroids).sum(axis=1)).ravel())
    centroids = sp.csr_matrix(sp.diags((1 / np.maximum(norms, 1e-12)).astype(np.float32)) @ centroids)
    transposed = centroids.T.tocsr()
    few = asked.X[:512]
    scipy_rate = rate(lambda: (few @ transposed).argmax(axis=1), 512, 1)
    found.append({"peer": "SciPy CSR x CSR, argmax", "predict rows/s": scipy_rate})
    try:
        from sparse_dot_topn import sp_matmul_topn
    except ImportError:
        pass
    else:
        top = rate(lambda: sp_matmul_topn(asked.X, transposed, top_n=1, n_threads=2), 2048)
        found.append({"peer": "sparse_dot_topn, 2 threads", "predict rows/s": top})
    return found


def _in_a_process(work: Callable[..., Any], *args: Any) -> Any:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, args)


def main() -> None:
    """The program."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rows", type=int, default=300_000, help="rows streamed")
    options.add_argument("--classes", type=int, default=5_000)
    options.add_argument("--modes", type=int, default=3)
    options.add_argument("--features", type=int, default=100_000)
    options.add_argument("--topics", type=report.names(TOPICS), default=list(TOPICS))
    options.add_argument("--lambdas", type=lambda text: [float(part) for part in text.split(",")], default=[0.0, 0.1])
    options.add_argument("--no-peers", action="store_true")
    options.add_argument("--json", type=Path, help="file for the results")
    chosen = options.parse_args()
    size = (chosen.rows, chosen.classes, chosen.features, chosen.modes)
    results = [_in_a_process(ours, topic, lam, *size) for topic in chosen.topics for lam in chosen.lambdas]
    report.show("prototide", results, 3)
    others = [] if chosen.no_peers else [row for topic in chosen.topics for row in _in_a_process(peers, topic, *size)]
    if others:
        report.show("peers, the same rows", report.filled(others), 0)
    report.write(chosen.json, "speed", chosen, {"prototide": results, "peers": others})


if __name__ == "__main__":
    main()

"""Speed and memory of the CPU engine on the headline workload, beside peers in the same run.

Parts, each of which runs alone (`--parts exact,peers`) and in processes of its own, so that peak memory is its own:

    exact     every hidden mode is a class: K = 15,000 exactly, k_init=1; separable and hard, lambda 0 and 0.1
    seeded    5,000 classes, k_init=3, seeded by `fit` on 45,000 rows (one pass), then streamed
    doubling  predicting with half of, all of and twice the classes, rows in proportion, lambda 0
    start     from `import` to the first prediction, with a warm cache
    peers     others that hold 15,000 prototypes or classes of the same rows, beside ours
    dense     others whose memory is classes x features, with 500 classes, beside ours with as many

Rates are medians of repeated calls; machines are noisy, so the ratio to a peer is what counts. A peer that is too slow
for all rows is given fewer: the column "rows" says how many were timed.

    python -m tests.benchmarks.speed --parts exact --topics separable --lambdas 0 --json exact.json
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from prototide.core import FastKMeansClassifier
from tests.benchmarks import report, speed_peers
from tests.benchmarks.timing import median_ms, rate
from tests.benchmarks.workload import TOPICS, Size, Workload, make, pieces

QUERIES, SINGLES = 8192, 300
SEED_ROWS = 45_000
QUERY_SEED, FIT_SEED = 5, 6

PREDICT, LEARN, FIT = "predict rows/s", "learn rows/s", "fit_batch rows/s"
ONE_PREDICT, ONE_LEARN, RSS = "predict 1 row ms", "learn 1 row ms", "RSS MB"
PEAK = "peak RSS MB"
TARGETS: dict[tuple[str, float], dict[str, float]] = {  # rates: at least; milliseconds and megabytes: at most
    ("separable", 0.0): {PREDICT: 40_000, FIT: 300_000, RSS: 600, ONE_PREDICT: 0.2, ONE_LEARN: 0.4},
    ("hard", 0.0): {PREDICT: 12_000, FIT: 300_000, RSS: 600, ONE_PREDICT: 0.2, ONE_LEARN: 0.4},
    ("separable", 0.1): {PREDICT: 10_000, LEARN: 8_000, RSS: 2_500, ONE_PREDICT: 0.2, ONE_LEARN: 0.4},
    ("hard", 0.1): {PREDICT: 6_000, LEARN: 8_000, RSS: 2_500, ONE_PREDICT: 0.2, ONE_LEARN: 0.4},
}
TARGET_PROTOTYPES = 15_000
DOUBLING_TARGET, START_TARGET_SECONDS = 1.6, 1.5

START = """
import time
started = time.perf_counter()
import numpy as np, scipy.sparse as sp
from prototide.core import FastKMeansClassifier
X = sp.random(64, 1000, 0.05, format="csr", dtype=np.float32, random_state=0)
FastKMeansClassifier().learn(X, np.arange(64) % 4, top_k=3)
print(time.perf_counter() - started)
"""


def streamed(model: FastKMeansClassifier, chunks: Iterator[Workload], label: str, rows: int, *, modes: bool) -> float:
    """Learns a stream; median rows/s of `fit_batch` over its last third. Tells how far it is."""
    rates, done = [], 0
    for chunk in chunks:
        y = chunk.mode if modes else chunk.y
        started = time.perf_counter()
        model.fit_batch(chunk.X, y)
        rates.append(len(y) / (time.perf_counter() - started))
        done += len(y)
        print(f"\r{label}: {done} of {rows} rows learned, {rates[-1]:.0f} rows/s ", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    return float(np.median(rates[-max(1, len(rates) // 3) :]))


def figures(model: FastKMeansClassifier, asked: Workload, y: np.ndarray) -> report.Record:
    """What predicting and learning cost now; the queries are learned at the end."""
    X = asked.X
    singles = [X[i : i + 1] for i in range(SINGLES)]
    found: report.Record = {
        "K": model.fit_batch(X[:0], y[:0])["active_centroids"],
        "accuracy": float(np.mean(model.predict(X) == y)),
        PREDICT: rate(lambda: model.predict(X), len(y)),
        "predict_top(3) rows/s": rate(lambda: model.predict_top(X, 3), len(y)),
        ONE_PREDICT: median_ms(lambda i: model.predict(singles[i]), SINGLES),
        "predict_top(1) 1 row ms": median_ms(lambda i: model.predict_top(singles[i], 1), SINGLES),
        ONE_LEARN: median_ms(lambda i: model.learn(singles[i], y[i : i + 1]), SINGLES),
    }
    return found | {LEARN: rate(lambda: model.learn(X, y), len(y), 1)}


def memory(model: FastKMeansClassifier, before: int) -> report.Record:
    """Bytes of the model and of the process; ``before`` it had a model."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"model MB": model.nbytes / 2**20, RSS: resident_mb(), PEAK: peak / 1024, "RSS before MB": before / 1024}


def resident_mb() -> float:
    """Memory of this process now; NaN where the system does not say."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * resource.getpagesize() / 2**20 if statm.exists() else float("nan")


def exact(topic: str, lambda_penalty: float, rows: int, size: Size) -> report.Record:
    """Every hidden mode a class, k_init=1."""
    asked = make(QUERIES, *size, TOPICS[topic], seed=QUERY_SEED)
    FastKMeansClassifier(lambda_penalty=lambda_penalty, k_init=1).learn(asked.X[:512], asked.mode[:512])  # compiles
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    model = FastKMeansClassifier(lambda_penalty=lambda_penalty, k_init=1)
    label = f"exact {topic} lambda {lambda_penalty:g}"
    learned = streamed(model, pieces(rows, size, TOPICS[topic]), label, rows, modes=True)
    held = memory(model, before)  # before the queries are learned
    about: report.Record = {"topic": topic, "lambda": lambda_penalty, "rows": rows}
    return about | figures(model, asked, asked.mode) | {FIT: learned} | held


def seeded(topic: str, lambda_penalty: float, rows: int, size: Size) -> report.Record:
    """Three prototypes a class from `fit`, then the stream."""
    asked = make(QUERIES, *size, TOPICS[topic], seed=QUERY_SEED)
    first = make(SEED_ROWS, *size, TOPICS[topic], seed=FIT_SEED)
    model = FastKMeansClassifier(lambda_penalty=lambda_penalty, k_init=3, max_iters=1)
    started = time.perf_counter()
    model.fit(first.X, first.y)
    seconds = time.perf_counter() - started
    held = model.fit_batch(asked.X[:0], asked.y[:0])["active_centroids"]
    del first
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    label = f"seeded {topic} lambda {lambda_penalty:g}"
    learned = streamed(model, pieces(rows, size, TOPICS[topic]), label, rows, modes=False)
    about: report.Record = {"topic": topic, "lambda": lambda_penalty, "rows": rows, "fit s": seconds, "K seeded": held}
    return about | figures(model, asked, asked.y) | {FIT: learned} | memory(model, before)


def doubling(topic: str, rows: int, size: Size) -> list[report.Record]:
    """Microseconds a row of `predict` as K doubles, twice."""
    features, classes, modes = size
    found: list[report.Record] = []
    for count in (classes // 2, classes, 2 * classes):
        part, few = (features, count, modes), rows * count // classes
        asked = make(QUERIES, *part, TOPICS[topic], seed=QUERY_SEED)
        model = FastKMeansClassifier(lambda_penalty=0.0, k_init=1)
        streamed(model, pieces(few, part, TOPICS[topic]), f"doubling {topic} K {count * modes}", few, modes=True)
        microseconds = 1e6 / rate(lambda model=model, X=asked.X: model.predict(X), QUERIES)
        last = found[-1]["microseconds a row"] if found else None
        found.append({
            "topic": topic, "K": int(model.fit_batch(asked.X[:0], [])["active_centroids"]), "rows": few,
            "microseconds a row": microseconds,
            "times the half": microseconds / last if isinstance(last, float) else None, "target": DOUBLING_TARGET,
        })  # fmt: skip
    return found


def start(repeats: int = 5) -> report.Record:
    """Seconds from import to the first prediction; a first process warms the cache."""
    seconds = [
        float(subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True).stdout)
        for _ in range(repeats + 1)
    ]
    return {"import to first prediction s": float(np.median(seconds[1:])), "target": START_TARGET_SECONDS}


def beside_targets(found: report.Record) -> list[report.Record]:
    """One line for each figure that has a target; none for a model of another size."""
    topic, lambda_penalty = str(found["topic"]), float(str(found["lambda"]))
    if found["K"] != TARGET_PROTOTYPES:
        return []
    lines: list[report.Record] = []
    for name, target in TARGETS.get((topic, lambda_penalty), {}).items():
        value = float(str(found[name]))
        share = value / target if name.endswith("rows/s") else target / value
        lines.append({
            "topic": topic, "lambda": lambda_penalty, "figure": name, "measured": value, "target": target,
            "target = 1": share,
        })  # fmt: skip
    return lines


def in_a_process(work: Callable[..., Any], *args: Any) -> Any:
    """The result of a call made in a fresh process."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(work, args)


def main() -> None:
    """The program."""
    parts = ("exact", "seeded", "doubling", "start", "peers", "dense")
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--parts", type=report.names(parts), default=list(parts))
    options.add_argument("--rows", type=int, default=300_000, help="rows streamed")
    options.add_argument("--classes", type=int, default=5_000)
    options.add_argument("--modes", type=int, default=3)
    options.add_argument("--features", type=int, default=100_000)
    options.add_argument("--topics", type=report.names(TOPICS), default=list(TOPICS))
    options.add_argument("--lambdas", type=lambda text: [float(part) for part in text.split(",")], default=[0.0, 0.1])
    options.add_argument("--json", type=Path, help="file for the results")
    chosen = options.parse_args()
    size = (chosen.features, chosen.classes, chosen.modes)
    results: dict[str, list[report.Record]] = {}
    pairs = [(topic, lam) for topic in chosen.topics for lam in chosen.lambdas]
    for part in chosen.parts:
        if part in ("exact", "seeded"):
            work = exact if part == "exact" else seeded
            results[part] = [in_a_process(work, topic, lam, chosen.rows, size) for topic, lam in pairs]
        elif part == "start":
            results[part] = [start()]
        else:
            each = {"doubling": doubling, "peers": speed_peers.full, "dense": speed_peers.dense}[part]
            results[part] = [row for t in chosen.topics for row in in_a_process(each, t, chosen.rows, size)]
        for row in results[part]:  # a table of one line each would be wider than a terminal
            if part in ("exact", "seeded"):
                report.show(
                    f"{part}, {row['topic']}, lambda {row['lambda']}",
                    [{"figure": name, "measured": value} for name, value in row.items()], 3,
                )  # fmt: skip
        if part == "exact":
            report.show("beside the targets", [line for row in results[part] for line in beside_targets(row)], 3)
        elif part != "seeded":
            report.show(part, report.filled(results[part]), 3)
        report.write(chosen.json, "speed", chosen, results)


if __name__ == "__main__":
    main()

"""Others beside ours, on the same rows in the same run. What is not installed is left out, and said."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.linear_model import SGDClassifier
from sklearn.neighbors import NearestCentroid

from prototide.core import FastKMeansClassifier
from tests.benchmarks import report
from tests.benchmarks.timing import rate
from tests.benchmarks.workload import TOPICS, Size, make, pieces

QUERY_SEED, QUERIES = 5, 8192
SCIPY_ROWS, TOPN_ROWS, HASHED_ROWS, DENSE_ROWS = 512, 2048, 256, 2048  # timed; what takes a few seconds
HASHED_COLUMNS = 2**12
DENSE_CLASSES = 500
THREADS = 2


def hashed(X: sp.csr_matrix, columns: int = HASHED_COLUMNS) -> sp.csr_matrix:
    """Columns by a multiplicative hash, with signs, as hashing linear models do."""
    mixed = (X.indices.astype(np.uint64) + 1) * np.uint64(0x9E3779B97F4A7C15)
    column, sign = (mixed >> np.uint64(40)) % np.uint64(columns), 1 - 2 * (mixed >> np.uint64(63)).astype(np.float32)
    found = sp.csr_matrix((X.data * sign, column.astype(np.int32), X.indptr), (X.shape[0], columns))
    found.sum_duplicates()
    return found


def full(topic: str, rows: int, size: Size) -> list[report.Record]:
    """All prototypes as sparse centroids, or all modes as classes."""
    features, classes, modes = size
    K = classes * modes
    asked = make(QUERIES, *size, TOPICS[topic], seed=QUERY_SEED)
    model = FastKMeansClassifier(lambda_penalty=0.0, k_init=1)
    centroids = sp.csr_matrix((K, features), dtype=np.float32)
    for chunk in pieces(rows, size, TOPICS[topic]):
        count = len(chunk.mode)
        ones = sp.csr_matrix((np.ones(count, np.float32), (chunk.mode, np.arange(count))), (K, count))
        centroids = centroids + ones @ chunk.X
        model.fit_batch(chunk.X, chunk.mode)
    _tell("models of both are made")
    norms = np.sqrt(np.asarray(centroids.multiply(centroids).sum(axis=1)).ravel())
    unit = sp.csr_matrix(sp.diags((1 / np.maximum(norms, 1e-12)).astype(np.float32)) @ centroids)
    transposed = sp.csr_matrix(unit.T)
    few, some = asked.X[:SCIPY_ROWS], asked.X[:TOPN_ROWS]
    lines = _Lines(topic, K)
    lines.add("prototide, lambda 0", QUERIES, lambda: model.predict(asked.X))
    lines.add("SciPy CSR x CSR, argmax", SCIPY_ROWS, lambda: (few @ transposed).argmax(axis=1), 1)
    try:
        from sparse_dot_topn import sp_matmul_topn
    except ImportError:
        _tell("sparse_dot_topn is not installed: pip install '.[bench]'")
    else:
        name = f"sparse_dot_topn, top 1, {THREADS} threads"
        lines.add(name, TOPN_ROWS, lambda: sp_matmul_topn(some, transposed, top_n=1, n_threads=THREADS))
    labels, linear = np.arange(K), SGDClassifier(loss="perceptron")
    part, y = hashed(asked.X[:HASHED_ROWS]), asked.mode[:HASHED_ROWS]
    linear.partial_fit(part, y, classes=labels)
    learn = rate(lambda: linear.partial_fit(part, y), HASHED_ROWS, 1)
    lines.add(f"hashing linear model, {HASHED_COLUMNS} columns", HASHED_ROWS, lambda: linear.predict(part), 1, learn)
    return lines.found


def dense(topic: str, rows: int, size: Size) -> list[report.Record]:
    """Those whose memory is classes x features: with few classes, ours with as many."""
    features = size[0]
    asked = make(DENSE_ROWS, features, DENSE_CLASSES, 1, TOPICS[topic], seed=QUERY_SEED)
    train = make(min(rows, 8 * DENSE_CLASSES), features, DENSE_CLASSES, 1, TOPICS[topic], seed=1)
    X, labels = asked.X, np.arange(DENSE_CLASSES)
    lines = _Lines(topic, DENSE_CLASSES)
    for lambda_penalty in (0.0, 0.1):
        model = FastKMeansClassifier(lambda_penalty=lambda_penalty, k_init=1)
        model.fit_batch(train.X, train.y)
        learn = rate(lambda model=model: model.learn(X, asked.y), DENSE_ROWS, 1)
        name = f"prototide, lambda {lambda_penalty:g}"
        lines.add(name, DENSE_ROWS, lambda model=model: model.predict(X), learned=learn)
    peers: list[tuple[str, Any, Callable[[Any, NDArray[np.int64]], Any]]] = [
        ("SGDClassifier", sgd := SGDClassifier(loss="log_loss"), lambda X, y: sgd.partial_fit(X, y, classes=labels)),
        ("MiniBatchKMeans", means := MiniBatchKMeans(DENSE_CLASSES, n_init=1), lambda X, y: means.partial_fit(X)),
        ("NearestCentroid", nearest := NearestCentroid(), nearest.fit),
    ]
    for name, peer, fit in peers:
        fit(train.X, train.y)
        learn = rate(lambda fit=fit: fit(X, asked.y), DENSE_ROWS, 1)
        fit(train.X, train.y)
        lines.add(name, DENSE_ROWS, lambda peer=peer: peer.predict(X), 1, learn)
    return lines.found


class _Lines:
    """The table of one topic; the first line is ours, to which others are compared."""

    def __init__(self, topic: str, K: int) -> None:
        self.topic, self.K = topic, K
        self.found: list[report.Record] = []

    def add(
        self, name: str, rows: int, predict: Callable[[], Any], repeats: int = 3, learned: float | None = None
    ) -> None:
        predicted = rate(predict, rows, repeats)
        ours = self.found[0]["predict rows/s"] if self.found else predicted
        self.found.append({
            "topic": self.topic, "K": self.K, "who": name, "rows": rows, "predict rows/s": predicted,
            "ours / theirs": float(str(ours)) / predicted, "learn rows/s": learned,
        })  # fmt: skip
        _tell(f"{name}: {predicted:.0f} rows/s")


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)

"""The one-pass classifiers that ours is compared with, behind one small interface.

Peers are given the full list of classes before the first row, as scikit-learn's `partial_fit` asks; ours is not. This
is in their favour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from river.linear_model import SoftmaxRegression
from river.optim import Adam
from river.tree import HoeffdingAdaptiveTreeClassifier
from sklearn.linear_model import SGDClassifier
from sklearn.naive_bayes import ComplementNB, MultinomialNB
from sklearn.preprocessing import normalize

from prototide.core import FastKMeansClassifier
from tests.benchmarks.data import DataSet

SEED = 42


class Learner(Protocol):
    """What a benchmark drives. X: (n, columns) CSR; y: (n,) labels."""

    def predict(self, X: sp.csr_matrix) -> NDArray[Any]: ...

    def learn(self, X: sp.csr_matrix, y: NDArray[Any]) -> None: ...


class Ours:
    """`FastKMeansClassifier` with its defaults, except for what is given."""

    def __init__(self, data: DataSet, **parameters: Any) -> None:
        parameters = {"distance": "euclidean" if data.euclidean else "cosine", "n_threads": 1} | parameters
        self.model = FastKMeansClassifier(**parameters)

    def predict(self, X: sp.csr_matrix) -> NDArray[Any]:
        return np.asarray(self.model.predict(X))

    def learn(self, X: sp.csr_matrix, y: NDArray[Any]) -> None:
        self.model.fit_batch(X, y)


class Peer:
    """A scikit-learn classifier fed by `partial_fit`."""

    def __init__(self, estimator: Any, classes: NDArray[Any]) -> None:
        self.estimator, self.classes = estimator, classes

    def predict(self, X: sp.csr_matrix) -> NDArray[Any]:
        return np.asarray(self.estimator.predict(X))

    def learn(self, X: sp.csr_matrix, y: NDArray[Any]) -> None:
        self.estimator.partial_fit(X, y, classes=self.classes)


class RunningCentroids:
    """The mean of each class, updated row by row; nearest by cosine, or by Euclidean distance."""

    def __init__(self, classes: NDArray[Any], columns: int, euclidean: bool) -> None:
        self.classes, self.euclidean = classes, euclidean
        self.sums = np.zeros((len(classes), columns), np.float32)
        self.counts = np.zeros(len(classes))

    def predict(self, X: sp.csr_matrix) -> NDArray[Any]:
        seen = np.flatnonzero(self.counts)
        sums = self.sums[seen]
        if self.euclidean:
            means = sums / self.counts[seen, None]
            score = np.asarray(X @ means.T) - (means**2).sum(axis=1) / 2
        else:
            lengths = np.sqrt(np.einsum("ij,ij->i", sums, sums, dtype=np.float64))
            score = np.asarray(X @ sums.T) / np.where(lengths > 0, lengths, 1.0)
        return np.asarray(self.classes[seen[score.argmax(axis=1)]])

    def learn(self, X: sp.csr_matrix, y: NDArray[Any]) -> None:
        number = np.searchsorted(self.classes, y)
        for c in np.unique(number):
            self.sums[c] += np.asarray(X[number == c].sum(axis=0)).ravel()
        self.counts += np.bincount(number, minlength=len(self.classes))


class RunningIdf:
    """Before another learner: entries times log((1 + rows) / (1 + rows with it)) + 1 of the rows learned so far."""

    def __init__(self, learner: Learner, columns: int) -> None:
        self.learner, self.rows, self.document_frequency = learner, 0, np.zeros(columns)

    def predict(self, X: sp.csr_matrix) -> NDArray[Any]:
        return self.learner.predict(self._weighted(X))

    def learn(self, X: sp.csr_matrix, y: NDArray[Any]) -> None:
        self.learner.learn(self._weighted(X), y)
        self.document_frequency += np.bincount(X.indices, minlength=len(self.document_frequency))
        self.rows += X.shape[0]

    def _weighted(self, X: sp.csr_matrix) -> sp.csr_matrix:
        idf = np.log((1 + self.rows) / (1 + self.document_frequency)) + 1
        weighted = sp.csr_matrix((X.data * idf[X.indices].astype(X.dtype), X.indices, X.indptr), X.shape)
        normalize(weighted, copy=False)
        return weighted


class RunningStandardisation:
    """Before another learner, for dense columns: each minus its mean, divided by its deviation, of the rows so far."""

    def __init__(self, learner: Learner, columns: int) -> None:
        self.learner, self.rows = learner, 0
        self.sums, self.squares = np.zeros(columns), np.zeros(columns)

    def predict(self, X: sp.csr_matrix) -> NDArray[Any]:
        return self.learner.predict(self._standardised(X))

    def learn(self, X: sp.csr_matrix, y: NDArray[Any]) -> None:
        dense = X.toarray().astype(np.float64)
        self.rows += X.shape[0]
        self.sums += dense.sum(axis=0)
        self.squares += (dense**2).sum(axis=0)
        self.learner.learn(self._standardised(X), y)

    def _standardised(self, X: sp.csr_matrix) -> sp.csr_matrix:
        mean = self.sums / self.rows
        deviation = np.sqrt(np.maximum(self.squares / self.rows - mean**2, 0))
        return sp.csr_matrix((X.toarray() - mean) / np.where(deviation > 1e-12, deviation, 1.0))


def _sgd(data: DataSet) -> Learner:
    return Peer(SGDClassifier(loss="log_loss", random_state=SEED), np.unique(data.y))


def _passive_aggressive(data: DataSet) -> Learner:
    """PA-I with C = 1, as scikit-learn's deprecated PassiveAggressiveClassifier."""
    estimator = SGDClassifier(loss="hinge", penalty=None, learning_rate="pa1", eta0=1.0, random_state=SEED)
    return Peer(estimator, np.unique(data.y))


def _complement_nb(data: DataSet) -> Learner:
    return Peer(ComplementNB(alpha=_smoothing(data)), np.unique(data.y))


def _multinomial_nb(data: DataSet) -> Learner:
    return Peer(MultinomialNB(alpha=_smoothing(data)), np.unique(data.y))


def _smoothing(data: DataSet) -> NDArray[np.float64]:
    """1 for each column; the last one stands for those that `narrowed` left out."""
    alpha = np.ones(data.X.shape[1])
    alpha[-1] += data.columns_left_out
    return alpha


def _centroids(data: DataSet) -> Learner:
    return RunningCentroids(np.unique(data.y), data.X.shape[1], data.euclidean)


class RiverPeer:
    """A classifier of river, row by row: its own mini-batch methods take pandas frames of few columns."""

    def __init__(self, model: Any) -> None:
        self.model = model
        self.fallback: Any = None  # the first label, while the model has no answer

    def predict(self, X: sp.csr_matrix) -> NDArray[Any]:
        answers = [self.model.predict_one(row) for row in _dicts(X)]
        return np.array([self.fallback if answer is None else answer for answer in answers])

    def learn(self, X: sp.csr_matrix, y: NDArray[Any]) -> None:
        if self.fallback is None:
            self.fallback = y[0]
        for row, label in zip(_dicts(X), y.tolist(), strict=True):
            self.model.learn_one(row, label)


def _dicts(X: sp.csr_matrix) -> Iterator[dict[int, float]]:
    """Each row as column -> value."""
    for begin, end in pairwise(X.indptr):
        yield dict(zip(X.indices[begin:end].tolist(), X.data[begin:end].tolist(), strict=True))


def _river_softmax(data: DataSet) -> Learner:
    return RiverPeer(SoftmaxRegression(optimizer=Adam(0.01), l2=0))


def _river_tree(data: DataSet) -> Learner:
    return RiverPeer(HoeffdingAdaptiveTreeClassifier(seed=SEED))


PEERS: dict[str, Callable[[DataSet], Learner]] = {
    "sgd": _sgd,
    "pa": _passive_aggressive,
    "cnb": _complement_nb,
    "mnb": _multinomial_nb,
    "centroid": _centroids,
    "river_softmax": _river_softmax,
    "river_tree": _river_tree,
}
NAIVE_BAYES = {"cnb", "mnb"}
WEIGHTED = "+"  # ending of a peer's name: with running idf (dense sets: standardised)
ALL_PEERS = [name + ending for name in PEERS for ending in ("", WEIGHTED)]
FAST_PEERS = [name for name in ALL_PEERS if not name.startswith("river")]


def applies(name: str, data: DataSet) -> bool:
    """Whether the peer can take such rows: naive Bayes takes no negative numbers."""
    return not (data.euclidean and name.endswith(WEIGHTED) and name.removesuffix(WEIGHTED) in NAIVE_BAYES)


def make_peer(name: str, data: DataSet) -> Learner:
    """The peer `name` of `ALL_PEERS` for the classes and columns of `data`."""
    learner = PEERS[name.removesuffix(WEIGHTED)](data)
    if not name.endswith(WEIGHTED):
        return learner
    columns = data.X.shape[1]
    return RunningStandardisation(learner, columns) if data.euclidean else RunningIdf(learner, columns)


def narrowed(data: DataSet) -> DataSet:
    """`data` without the columns that no row uses, one excepted (the last): the same for every peer, but smaller."""
    used, indices = np.unique(data.X.indices, return_inverse=True)
    left_out = data.X.shape[1] - len(used) - 1
    if left_out <= 0:
        return data
    X = sp.csr_matrix((data.X.data, indices, data.X.indptr), shape=(data.X.shape[0], len(used) + 1))
    return replace(data, X=X, columns_left_out=left_out)

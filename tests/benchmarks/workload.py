"""The headline workload, made from a seed: rows like TF-IDF documents, many classes, each with hidden modes.

Every class is a mixture of modes; a mode is a vocabulary of its own over a shared Zipf background. `topic` is the share
of a row's tokens that come from its mode's vocabulary: 0.5 is "separable", 0.15 "hard". Rows have some 75 non-zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

SEPARABLE, HARD = 0.5, 0.15
TOPICS = {"separable": SEPARABLE, "hard": HARD}
TOKENS, VOCABULARY = 80, 200
CHUNK = 8192
Size = tuple[int, int, int]  # features, classes, modes


@dataclass(frozen=True)
class Workload:
    """``X``: (rows, features) float32 CSR of unit rows; ``y`` the class, ``mode`` the hidden mode of each row."""

    X: sp.csr_matrix
    y: NDArray[np.int64]
    mode: NDArray[np.int64]


def make(
    rows: int,
    features: int = 100_000,
    classes: int = 5_000,
    modes: int = 3,
    topic: float = SEPARABLE,
    seed: int = 0,
    tokens: int = TOKENS,
) -> Workload:
    """Rows drawn with ``seed`` from one fixed set of vocabularies: another seed, other rows of the same classes."""
    concept, random = np.random.default_rng([7, 0]), np.random.default_rng([11, 0, seed])
    zipf = np.cumsum(1 / np.arange(1, features + 1))
    zipf /= zipf[-1]
    words = concept.integers(0, features, size=(classes * modes, VOCABULARY))
    rank = np.cumsum(1 / np.arange(1, VOCABULARY + 1) ** 0.8)
    rank /= rank[-1]
    y = random.integers(0, classes, size=rows)
    mode = y * modes + random.integers(0, modes, size=rows)
    length = np.maximum(5, random.poisson(tokens * 1.15, size=rows))
    row = np.repeat(np.arange(rows), length)
    total = row.size
    own = random.random(total) < topic
    background = np.minimum(np.searchsorted(zipf, random.random(total)), features - 1)
    topical = words[mode[row], np.minimum(np.searchsorted(rank, random.random(total)), VOCABULARY - 1)]
    X = sp.csr_matrix((np.ones(total, np.float32), (row, np.where(own, topical, background))), shape=(rows, features))
    X.sum_duplicates()
    idf = np.log(1 + 1 / (1e-6 + (1 - topic) * 90 * np.diff(zipf, prepend=0))).astype(np.float32) + 1
    X.data = (1 + np.log(X.data)) * idf[X.indices]
    norm = np.sqrt(np.asarray(X.multiply(X).sum(1)).ravel())
    X = sp.csr_matrix(sp.diags((1 / norm).astype(np.float32)) @ X).astype(np.float32)
    X.sort_indices()
    return Workload(X, y, mode)


def pieces(rows: int, size: Size, topic: float, first_seed: int = 100, tokens: int = TOKENS) -> Iterator[Workload]:
    """A stream in chunks, made one at a time: the whole of it would weigh more than the models that learn it."""
    for number, first in enumerate(range(0, rows, CHUNK)):
        yield make(min(CHUNK, rows - first), *size, topic, first_seed + number, tokens)

"""Small random streams, the same for the same seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray


def text_stream(
    seed: int,
    rows: int,
    features: int = 40,
    classes: int = 5,
    modes: int = 2,
    dtype: type[np.floating[Any]] = np.float64,
) -> tuple[sp.csr_matrix, NDArray[np.int64]]:
    """Sparse rows of classes with several modes each: (rows, features) CSR and (rows,) labels 0..classes - 1.

    Values are continuous and every row has two non-zeros at least, so that no two scores tie by accident.
    """
    random = np.random.default_rng(seed)
    words = random.random((classes * modes, features)) ** 6
    labels = random.integers(0, classes, rows)
    mode = labels * modes + random.integers(0, modes, rows)
    present = random.random((rows, features)) < words[mode] * 0.8 + 0.05
    for _ in range(2):
        present[np.arange(rows), random.integers(0, features, rows)] = True
    present[np.arange(rows), labels % features] = True
    present[np.arange(rows), (labels + 1) % features] = True
    values = random.random((rows, features)) + 0.5
    return sp.csr_matrix(np.where(present, values, 0.0).astype(dtype)), labels


def dense_stream(
    seed: int, rows: int, features: int = 4, classes: int = 3, spread: float = 1.0
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Gaussian blobs away from the origin: (rows, features) and (rows,) labels."""
    random = np.random.default_rng(seed)
    centres = 10 + 3 * random.standard_normal((classes, features))
    labels = random.integers(0, classes, rows)
    return centres[labels] + spread * random.standard_normal((rows, features)), labels


def two_faced_class(seed: int, rows: int, sides: int = 3) -> tuple[sp.csr_matrix, NDArray[np.int64]]:
    """Class 0 has ``sides`` faces that share nothing, class 1 lies between them: one prototype cannot serve class 0."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, rows)
    face = random.integers(0, sides, rows)
    X = 0.05 * random.random((rows, 2 * sides))
    X[np.arange(rows), face] += 1.0
    between = labels == 1
    X[between, :sides] = 0.5 + 0.1 * random.random((int(between.sum()), sides))
    return sp.csr_matrix(X), labels

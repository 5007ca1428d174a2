"""Prequential accuracy: each row is predicted just before it is learned, so every error is an honest one."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class PrequentialWindow:
    """Accuracy over the last `size` rows that had a truth."""

    def __init__(self, size: int) -> None:
        self._wrong = np.zeros(size, np.bool_)
        self._seen = 0

    def update(self, errors: NDArray[np.bool_]) -> None:
        """Takes the errors of rows (n,), oldest first; True where the prediction was wrong."""
        size = len(self._wrong)
        newest = errors[-size:]
        end = self._seen + len(errors)
        self._wrong[np.arange(end - len(newest), end) % size] = newest
        self._seen = end

    @property
    def accuracy(self) -> float:
        """Share of right predictions in the window; NaN before the first row."""
        filled = min(self._seen, len(self._wrong))
        return 1.0 - float(self._wrong[:filled].mean()) if filled else float("nan")

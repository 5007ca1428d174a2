"""A generated stream that looks like text, drifts and never runs out of new classes: what the demo classifies.

A row is a short document: words of a background vocabulary that all classes share (Zipf) mixed with words of one of its
class's modes (sub-topics). Three things change as rows go by:

- classes arrive: class n + 1 comes `ROWS_PER_ARRIVAL` n rows after class n, so about sqrt(2 rows / ROWS_PER_ARRIVAL)
  are known;
- every mode slowly replaces its words (gradual drift);
- now and then pairs of classes exchange their words (abrupt drift: accuracy falls, then recovers).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

COLUMNS = 2**15
BACKGROUND_WORDS = 8_000  # columns below are shared by all classes
MODES = 3  # sub-topics of a class
MODE_WORDS = 24
WORDS = 32  # of a document, repeated ones included
CLASS_SHARE = 0.15  # of a document's words that come from its class
FIRST_CLASSES = 8
ROWS_PER_ARRIVAL = 60
ROWS_PER_REPLACED_WORD = 400  # one word of every mode
ROWS_PER_EXCHANGE = 20_000
EXCHANGED_SHARE = 0.25  # of the classes, at one exchange


class DemoStream:
    """The state of the generated world; the same seed and sizes give the same batches."""

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)
        self._background = _zipf_cumulative(BACKGROUND_WORDS, exponent=1.05)
        self._within_mode = _zipf_cumulative(MODE_WORDS, exponent=0.7)
        self._words = np.empty((0, MODES, MODE_WORDS), dtype=np.int32)  # (classes, modes, words) -> column
        self.rows = 0
        self.exchanges = 0
        self._next_arrival = 0
        for _ in range(FIRST_CLASSES):
            self._arrive()

    @property
    def classes(self) -> int:
        """Classes that have arrived so far."""
        return int(self._words.shape[0])

    def batches(self, rows: int) -> Iterator[tuple[sp.csr_matrix, list[str]]]:
        """Endless batches: X (rows, COLUMNS) float32 with unit rows, and a label a row such as ``topic-017``."""
        while True:
            yield self.batch(rows)

    def batch(self, rows: int) -> tuple[sp.csr_matrix, list[str]]:
        """Moves the world on by `rows` and draws that many documents from it."""
        classes = self._random.integers(self.classes, size=rows)
        modes = self._random.integers(MODES, size=rows)
        words = self._documents(classes, modes)
        self._move_on(rows)
        return _sublinear_unit_rows(words), [f"topic-{c:03d}" for c in classes.tolist()]

    def _documents(self, classes: NDArray[np.int64], modes: NDArray[np.int64]) -> NDArray[np.int32]:
        """Columns of each document's words, (rows, WORDS)."""
        shape = (len(classes), WORDS)
        ranks = np.searchsorted(self._within_mode, self._random.random(shape))
        own = self._words[classes[:, None], modes[:, None], ranks]
        background = np.searchsorted(self._background, self._random.random(shape)).astype(np.int32)
        return np.where(self._random.random(shape) < CLASS_SHARE, own, background)

    def _move_on(self, rows: int) -> None:
        before, self.rows = self.rows, self.rows + rows
        while self.rows >= self._next_arrival:
            self._arrive()
        for _ in range(_passed(before, self.rows, ROWS_PER_REPLACED_WORD)):
            self._replace_words()
        for _ in range(_passed(before, self.rows, ROWS_PER_EXCHANGE)):
            self._exchange()

    def _arrive(self) -> None:
        newcomer = self._random.integers(BACKGROUND_WORDS, COLUMNS, size=(1, MODES, MODE_WORDS), dtype=np.int32)
        self._words = np.concatenate([self._words, newcomer])
        if self.classes >= FIRST_CLASSES:
            self._next_arrival = self.rows + ROWS_PER_ARRIVAL * self.classes

    def _replace_words(self) -> None:
        slot = self._random.integers(MODE_WORDS, size=(self.classes, MODES, 1))
        words = self._random.integers(BACKGROUND_WORDS, COLUMNS, size=slot.shape, dtype=np.int32)
        np.put_along_axis(self._words, slot, words, axis=2)

    def _exchange(self) -> None:
        pairs = max(1, round(self.classes * EXCHANGED_SHARE / 2))
        left, right = self._random.permutation(self.classes)[: 2 * pairs].reshape(2, pairs)
        self._words[left], self._words[right] = self._words[right], self._words[left]
        self.exchanges += 1


def _passed(before: int, after: int, every: int) -> int:
    """How many multiples of `every` lie in (before, after]."""
    return after // every - before // every


def _zipf_cumulative(words: int, exponent: float) -> NDArray[np.float64]:
    """Cumulative probabilities of ranks 1..words, P(rank) ~ rank^-exponent."""
    weights = np.arange(1, words + 1, dtype=np.float64) ** -exponent
    cumulative: NDArray[np.float64] = np.cumsum(weights / weights.sum())
    cumulative[-1] = 1.0  # rounding must not leave a gap that a draw can fall into
    return cumulative


def _sublinear_unit_rows(words: NDArray[np.int32]) -> sp.csr_matrix:
    """Rows of 1 + log(count) for each word of a document, divided by their length."""
    rows, length = words.shape
    counts = sp.csr_matrix(
        (np.ones(words.size, dtype=np.float32), words.ravel(), np.arange(0, words.size + 1, length)),
        shape=(rows, COLUMNS),
    )
    counts.sum_duplicates()
    np.log(counts.data, out=counts.data)
    counts.data += 1.0
    lengths = np.sqrt(np.add.reduceat(counts.data**2, counts.indptr[:-1]))
    counts.data /= np.repeat(lengths, np.diff(counts.indptr))
    return counts

"""Labels: ints (int64) and strings, mixed in one model, each a class; numbered in the order in which they come."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prototide.core.scikit import DataConversionWarning

Label = int | str
UNLABELLED = -1
SMALLEST_WEIGHT = 1e-12  # below, a weight counts as 0: its square would vanish
LARGEST_WEIGHT = 1e12  # what float32 sums of rows bear


class Labels:
    """The classes of a model: label <-> number. ``1`` and ``"1"`` are two classes."""

    def __init__(self, names: Iterable[Label | None] = ()) -> None:
        self.names: list[Label | None] = list(names)  # by number; None: a forgotten class, free for the next new one
        self._number: dict[Label, int] = {name: number for number, name in enumerate(self.names) if name is not None}
        self.changes = 0  # grows whenever a label gets a number, or loses it
        self._objects: tuple[int, NDArray[np.object_]] = (-1, np.zeros(0, object))  # made after so many changes
        self._sorted: tuple[int, NDArray[Any]] = (-1, np.zeros(0, object))

    def __len__(self) -> int:
        return len(self._number)

    def __contains__(self, label: object) -> bool:
        return label in self._number

    def numbers(self, labels: Sequence[Label | None]) -> NDArray[np.int32]:
        """The class number of each checked label, `UNLABELLED` for None and for labels not added."""
        found = map(self._number.get, labels, repeat(UNLABELLED))  # type: ignore[arg-type]
        return np.fromiter(found, np.int32, len(labels))

    def add(self, labels: Sequence[Label | None]) -> int:
        """Adds the labels not yet known, in order; how many there were."""
        new = [label for label in dict.fromkeys(labels) if label is not None and label not in self._number]
        free = iter([number for number, name in enumerate(self.names) if name is None] if new else [])
        for label in new:
            number = next(free, len(self.names))
            self.names[number : number + 1] = [label]
            self._number[label] = number
        self.changes += bool(new)
        return len(new)

    def forget(self, numbers: Iterable[int]) -> None:
        """Takes classes out; their numbers are given to the next new ones."""
        for number in numbers:
            name = self.names[number]
            if name is not None:
                del self._number[name]
                self.names[number] = None
                self.changes += 1

    def objects(self) -> NDArray[np.object_]:
        """All labels by number, then None: number -1 reads None. Not to be changed."""
        if self._objects[0] != self.changes:
            array = np.empty(len(self.names) + 1, object)
            array[: len(self.names)] = self.names
            self._objects = self.changes, array
        return self._objects[1]

    def sorted_numbers(self) -> NDArray[np.int64]:
        """Class numbers in the order of ``classes_``: ints ascending, then strings."""
        order = sorted(self._number.items(), key=lambda item: (isinstance(item[0], str), item[0]))
        return np.array([number for _, number in order], np.int64)

    def sorted_names(self) -> list[Label]:
        """The labels in that order."""
        return sorted(self._number, key=lambda label: (isinstance(label, str), label))

    def sorted_array(self) -> NDArray[Any]:
        """The same as `as_array` makes it. Not to be changed."""
        if self._sorted[0] != self.changes:
            self._sorted = self.changes, as_array(self.sorted_names())
        return self._sorted[1]


def as_array(labels: Sequence[Label]) -> NDArray[Any]:
    """Labels as an array of their own type: int64, str, or object when mixed."""
    kinds = {isinstance(label, str) for label in labels}
    if any(isinstance(label, str) and label.endswith("\0") for label in labels):  # NumPy's strings would lose it
        return np.array(labels, object)
    if kinds == {False}:
        return np.array(labels, np.int64)
    return np.array(labels) if kinds == {True} else np.array(labels, object)


def checked_labels(y: Any, rows: int) -> list[Label | None]:
    """One label per row as a plain list; None marks an unlabelled row, ``y=None`` labels none.

    Raises ValueError naming what is wrong: other than one dimension (one-hot, probabilities), floats that are not
    whole, NaN, booleans, other types, ints beyond int64, another number than ``rows``.
    """
    if y is None:
        return [None] * rows
    if hasattr(y, "detach"):  # a torch tensor
        y = y.detach().cpu()
        y = (y.double() if y.is_floating_point() else y).numpy()
    if np.ma.isMaskedArray(y) and np.ma.getmaskarray(y).any():
        raise ValueError("y is a masked array with masked labels; mark unlabelled rows by None: y.filled() hides them")
    if isinstance(y, list | tuple):  # np.asarray would turn a mixture of ints and strings into strings
        array: NDArray[Any] = np.fromiter(y, object, len(y))
    else:
        array = np.asarray(y)
    if array.ndim == 2 and array.shape[1] == 1:
        warnings.warn(
            "A column-vector y was passed when a 1d array was expected: pass y.ravel()",
            DataConversionWarning,
            stacklevel=4,
        )
        array = array.ravel()
    if array.ndim == 0:
        raise ValueError(f"y must be a list or array of labels, got {y!r}")
    if array.ndim != 1:
        raise ValueError(
            f"y must have one label per row, got an array of shape {array.shape}: "
            "for one-hot or probabilities pass y.argmax(axis=1)"
        )
    if array.size != rows:
        raise ValueError(f"X and y have inconsistent numbers of samples: X has {rows} rows, y has {array.size} labels")
    if array.dtype.kind in "iu":
        if array.dtype.kind == "u" and array.size and int(array.max()) > 2**63 - 1:
            raise ValueError(f"y contains {array.max()}; integer labels must fit 64 bits with sign")
        return list(array.tolist())
    if array.dtype.kind == "U":
        return _encodable(array.tolist())
    if array.dtype.kind == "f":
        return _whole(array)
    if array.dtype.kind in "mM":  # as plain objects, nanoseconds would be ints
        raise ValueError(f"y contains dates or durations, dtype {array.dtype}; labels are ints, strings or None")
    return _plain(array)


def _whole(array: NDArray[np.floating[Any]]) -> list[Label | None]:
    odd = ~(np.isfinite(array) & (array == np.floor(array)) & (np.abs(array) <= 2.0**53))
    if odd.any():
        raise ValueError(
            f"Unknown label type: y contains the float {array[odd][0]}; labels are ints, strings or None (unlabelled), "
            "not NaN, probabilities or continuous values"
        )
    return list(array.astype(np.int64).tolist())


def _plain(array: NDArray[Any]) -> list[Label | None]:
    if array.dtype.kind == "b":
        raise ValueError("y contains booleans; labels are ints or strings: use y.astype(int)")
    labels: list[Any] = array.tolist()
    kinds = set(map(type, labels))
    for kind in kinds - {int, str, type(None)}:
        example = next(label for label in labels if type(label) is kind)
        if issubclass(kind, np.integer):
            labels = [int(label) if type(label) is kind else label for label in labels]
        elif issubclass(kind, str):
            labels = [str(label) if type(label) is kind else label for label in labels]
        elif issubclass(kind, float | np.floating) and all(
            math.isfinite(label) and float(label).is_integer() for label in labels if type(label) is kind
        ):
            labels = [int(label) if type(label) is kind else label for label in labels]
        else:
            raise ValueError(
                f"y contains {example!r} of type {kind.__name__}; labels are ints, strings or None (unlabelled)"
            )
    ints = labels if kinds == {int} else [label for label in labels if isinstance(label, int)]
    if ints and not -(2**63) <= min(ints) <= max(ints) < 2**63:
        big = next(label for label in ints if not -(2**63) <= label < 2**63)
        raise ValueError(f"y contains {big}; integer labels must fit 64 bits with sign")
    return labels if kinds == {int} else _encodable(labels)


def _encodable(labels: list[Label | None]) -> list[Label | None]:
    """The same; ValueError for a string that no file and no message could hold."""
    try:
        "".join([label for label in labels if isinstance(label, str)]).encode()
    except UnicodeEncodeError as wrong:
        bad = next(label for label in labels if isinstance(label, str) and wrong.object[wrong.start] in label)
        raise ValueError(f"y contains {bad!r}; string labels must be valid Unicode (no lone surrogates)") from None
    return labels


def checked_weights(sample_weight: Any, rows: int) -> NDArray[np.float64]:
    """(rows,) finite weights >= 0; None is 1 for every row; above `LARGEST_WEIGHT` counts as that, below
    `SMALLEST_WEIGHT` as 0.

    Raises ValueError naming the first wrong one.
    """
    if sample_weight is None:
        return np.ones(rows)
    if hasattr(sample_weight, "detach"):  # a torch tensor
        sample_weight = sample_weight.detach().cpu().double().numpy()
    if np.ma.isMaskedArray(sample_weight) and np.ma.getmaskarray(sample_weight).any():
        raise ValueError("sample_weight is a masked array with masked weights: fill them, sample_weight.filled(0)")
    try:
        given = np.asarray(sample_weight)
        weight = np.asarray(given.astype(np.float64, casting="unsafe" if given.dtype.kind in "OUS" else "same_kind"))
    except (TypeError, ValueError, OverflowError) as reason:
        raise ValueError(f"sample_weight must hold one real number per row: {reason}") from None
    if weight.ndim == 0:
        weight = np.full(rows, float(weight))
    if weight.shape != (rows,):
        raise ValueError(f"sample_weight.shape == {weight.shape}, expected ({rows},): one weight per row")
    wrong = ~(np.isfinite(weight) & (weight >= 0))
    if wrong.any():
        at = int(np.flatnonzero(wrong)[0])
        raise ValueError(f"sample_weight[{at}] is {weight[at]}; weights must be finite and not negative")
    return np.where(weight < SMALLEST_WEIGHT, 0.0, np.minimum(weight, LARGEST_WEIGHT))

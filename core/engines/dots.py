"""The products M_a . M_b of the prototypes of each class: a square block for each, one after the other.

A prototype's row and column in its class's block is its rank. The kernels keep the products up while a class learns.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from prototide.core.engines.tables import ACTIVE, TRIAL, Classes, Ints, Longs, Reals, Slots, chain_of


class Dots(NamedTuple):
    """Block of class c: size[c] x size[c] values from first[c] on."""

    values: Reals
    first: Longs  # (classes,)
    size: Ints  # (classes,)

    def block(self, c: int) -> Reals:
        """(size, size) view of a class's products."""
        first, size = int(self.first[c]), int(self.size[c])
        return self.values[first : first + size * size].reshape(size, size)

    def places(self, cls: Ints, rank: Ints, other: Ints) -> Longs:
        """(n,) where the products of prototypes of these ranks lie in ``values``."""
        return np.asarray(self.first[cls] + rank * self.size[cls] + other, np.int64)


def empty_dots(size: Ints) -> Dots:
    """Zeros. ``size``: (classes,) ranks of each."""
    return sized_dots(np.zeros(int((size.astype(np.int64) ** 2).sum())), size)


def sized_dots(values: Reals, size: Ints) -> Dots:
    """The products with these values."""
    squares = size.astype(np.int64) ** 2
    return Dots(values, np.cumsum(squares) - squares, size)


def grown_dots(dots: Dots, size: Ints) -> Dots:
    """The same with room for at least so many ranks; ``size`` has as many classes or more."""
    known = dots.size.size
    size = size.copy()
    size[:known] = np.maximum(size[:known], dots.size)
    if size.size == known and np.array_equal(size, dots.size):
        return dots
    new = empty_dots(size)
    if np.array_equal(size[:known], dots.size):
        new.values[: dots.values.size] = dots.values
    else:
        for c in range(known):
            new.block(c)[: dots.size[c], : dots.size[c]] = dots.block(c)
    return new


def recompute_dots(
    dots: Dots, slots: Slots, classes: Classes, rank: Ints, entries_of: Callable[[Ints], tuple[Any, ...]]
) -> None:
    """All products anew, from |M|^2 and the entries. ``entries_of``: (features, slots, M, ...) of some slots."""
    alive = np.flatnonzero((slots.kind == ACTIVE) | (slots.kind == TRIAL)).astype(np.int32)
    cls = slots.cls[alive]
    dots.values[:] = 0
    dots.values[dots.places(cls, rank[alive], rank[alive])] = slots.square[alive]
    several = alive[np.bincount(cls, minlength=classes.active.size)[cls] > 1]
    if not several.size:
        return
    feature, slot, M, *_ = entries_of(several)
    shape = slots.kind.size, int(feature.max(initial=0)) + 1
    matrix = sp.csr_matrix((M.astype(np.float64), (slot, feature)), shape=shape)
    for c in np.unique(slots.cls[several]).tolist():
        chain = chain_of(slots, classes, c)
        products = (matrix[chain] @ matrix[chain].T).toarray()
        np.fill_diagonal(products, slots.square[chain])
        dots.block(c)[np.ix_(rank[chain], rank[chain])] = products

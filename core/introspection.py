"""Looking inside: why a row was answered as it was, what the prototypes are, which classes are alike.

The score of a prototype is linear in the row, s_p = sum over features j of x_j V_pj, where x is the row times the idf,
at unit length, and V_p = tau M_p / |M_p| + R_p. So each feature has its part in a score, and in the lead of the winner.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, overload

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from prototide.core.engines.tables import ACTIVE, Ints, Reals
from prototide.core.labels import Label
from prototide.core.rows import CsrRows

if TYPE_CHECKING:
    from prototide.core.model import Model

LIFTED = 2  # columns in front that the euclidean lift adds: features -2 and -1
TOP_FEATURES = 10  # told of each prototype
FINGERPRINT = 64  # heaviest features of a centre, by which its likes are found
CANDIDATES = 16  # likes of each prototype that are measured exactly
BLOCK = 256  # prototypes compared at a time


@dataclass(frozen=True)
class Contribution:
    """A feature's part in the winner's score: ``centre + correction``."""

    feature: int  # column; of a euclidean model, the lifted coordinate of that column (-2, -1: of the lift itself)
    value: float  # in the row, times the idf, at unit length
    centre: float  # by the centre (in a frozen model, by both)
    correction: float  # by the correction, with the mutual information in it


@dataclass(frozen=True)
class Explanation:
    """Why a row is answered as it is. Of a row without non-zeros, or without any class, nothing is known."""

    label: Label | None
    prototype: int  # id of the winner, -1 for none
    score: float
    similarity: float | None  # cosine of the row and the winner's centre; None of a frozen model
    contributions: list[Contribution]  # the largest, by size
    runner_up: Label | None  # the next best class
    runner_up_prototype: int
    margin: float | None  # the winner's lead in score; None without a runner-up
    without: list[int]  # fewest features of the row without which the runner-up would score as high
    adding: list[int]  # fewest features, each as heavy as the row's mean, with which it would; empty when none would do


@dataclass(frozen=True)
class Prototype:
    """A prototype as it was when asked for."""

    id: int
    label: Label
    mass: float  # weight of the rows that it attracted, as far as it is not forgotten
    birth_step: int
    norm: float  # length of its centre, the sum of these rows
    top_features: list[tuple[int, float]]  # the heaviest in its score: (column, V_pj)


class Prototypes(Sequence[Prototype]):
    """The active prototypes, oldest slot first; light: features are looked up when a prototype is asked for."""

    def __init__(self, model: Model) -> None:
        slots = model.engine.slots
        self._model = model
        self._slots = np.flatnonzero(slots.kind == ACTIVE)
        self._ids, self._births = slots.id[self._slots], slots.birth[self._slots]
        self._masses = slots.mass[self._slots] / model.engine.omega
        self._norms = np.sqrt(slots.square[self._slots]) / model.engine.omega
        self._labels = model.labels.objects()[slots.cls[self._slots]]

    def __len__(self) -> int:
        return self._slots.size

    @overload
    def __getitem__(self, at: int) -> Prototype: ...
    @overload
    def __getitem__(self, at: slice) -> list[Prototype]: ...
    def __getitem__(self, at: int | slice) -> Prototype | list[Prototype]:
        if isinstance(at, slice):
            return [self[each] for each in range(*at.indices(len(self)))]
        slot, identity = int(self._slots[at]), int(self._ids[at])
        with self._model.lock:
            if self._model.engine.slots.id[slot] != identity:
                raise LookupError(f"prototype {identity} is no more (pruned or merged): ask for prototypes_ again")
            features, centre, correction = self._model.engine.scoring_vector(slot)
        features, weights = features - _offset(self._model), centre + correction
        heaviest = np.argsort(-np.abs(weights), kind="stable")[:TOP_FEATURES]
        top = [(int(features[i]), float(weights[i])) for i in heaviest]
        return Prototype(
            identity, self._labels[at], float(self._masses[at]), int(self._births[at]), float(self._norms[at]), top
        )


def _offset(model: Model) -> int:
    return 0 if model.lift is None else LIFTED


def explain(model: Model, rows: CsrRows, n: int) -> list[Explanation]:
    """One explanation a row, with the n largest contributions; O(entries of two prototypes) each."""
    points, prepared = model.is_point(rows), model.as_known(rows)
    ranking, _ = model.engine.rank(prepared, 2)
    x = model.engine.weighted(prepared)
    explanations = []
    for t in range(rows.count):
        entries = slice(prepared.indptr[t], prepared.indptr[t + 1])
        if points[t] and ranking.slots[t, 0] >= 0:
            row = _Row(prepared.indices[entries], x[entries], ranking.classes[t], ranking.slots[t], ranking.scores[t])
            explanations.append(_explained(model, row, n))
        else:
            explanations.append(Explanation(None, -1, 0.0, None, [], None, -1, None, [], []))
    return explanations


@dataclass(frozen=True)
class _Row:
    features: Ints
    x: Reals  # times the idf, at unit length
    classes: Ints  # (2,) winner and runner-up, -1 for none
    slots: Ints
    scores: Reals


def _explained(model: Model, row: _Row, n: int) -> Explanation:
    names, ids = model.labels.objects(), np.append(model.engine.slots.id, -1)  # -1 reads the last: none
    winner, other = (int(slot) for slot in row.slots)
    centre, correction = (row.x * part for part in _on_row(model, winner, row.features))
    parts, offset = centre + correction, _offset(model)
    contributions = [
        Contribution(int(row.features[i]) - offset, float(row.x[i]), float(centre[i]), float(correction[i]))
        for i in np.argsort(-np.abs(parts), kind="stable")[:n]
    ]
    without, adding = _changes(model, row, parts) if other >= 0 and model.lift is None else ([], [])
    return Explanation(
        label=names[row.classes[0]],
        prototype=int(ids[winner]),
        score=float(row.scores[0]),
        similarity=None if model.frozen else float(centre.sum()) / model.engine.rule.tau,
        contributions=contributions,
        runner_up=names[row.classes[1]],
        runner_up_prototype=int(ids[other]),
        margin=float(row.scores[0] - row.scores[1]) if other >= 0 else None,
        without=without,
        adding=adding,
    )


def _on_row(model: Model, slot: int, features: Ints) -> tuple[Reals, Reals]:
    """The two parts of a prototype's scoring vector at the row's features."""
    held, centre, correction = model.engine.scoring_vector(slot)
    at = np.searchsorted(held, features)
    found = np.append(held, -1)[at] == features
    return np.where(found, np.append(centre, 0.0)[at], 0.0), np.where(found, np.append(correction, 0.0)[at], 0.0)


def _changes(model: Model, row: _Row, parts: Reals) -> tuple[list[int], list[int]]:
    """Fewest features to take away, and to add, so that the winner leads the runner-up's prototype no more.

    parts: (features,) in the winner's score. Restoring length 1 is a factor common to all scores, so the sign of the
    lead is exact; whether yet another prototype wins then is not looked at.
    """
    winner, other = (int(slot) for slot in row.slots)
    leads = parts - row.x * sum(_on_row(model, other, row.features))
    lead = float(leads.sum())
    vectors = [model.engine.scoring_vector(slot) for slot in (other, winner)]
    held = np.union1d(vectors[0][0], vectors[1][0])
    gain = np.zeros(held.size)
    for sign, (features, centre, correction) in zip((1, -1), vectors, strict=True):
        gain[np.searchsorted(held, features)] += sign * (centre + correction)
    new = ~np.isin(held, row.features)
    return _fewest(row.features, leads, lead), _fewest(held[new], gain[new] * float(np.abs(row.x).mean()), lead)


def _fewest(features: Ints, parts: Reals, needed: float) -> list[int]:
    """The features with the largest parts, as many as bring together what is needed; none, when all cannot."""
    order = np.argsort(-parts, kind="stable")
    order = order[parts[order] > 0]
    total = np.cumsum(parts[order])
    slack = 1e-9 * max(1.0, abs(needed))  # sums in another order
    if not total.size or total[-1] < needed - slack:
        return []
    return [int(feature) for feature in features[order[: int(np.argmax(total >= needed - slack)) + 1]]]


def similar_classes(model: Model, n: int) -> list[tuple[Label, Label, float]]:
    """The n pairs of classes with the nearest centres: (label, label, cosine of their nearest two), nearest first.

    A centre's likes are found by its `FINGERPRINT` heaviest features; the best of them are measured exactly. Cost: the
    lengths of these features' lists over all prototypes (never prototypes x prototypes x features), and a copy of the
    centres. ValueError of a frozen model, which keeps none.
    """
    slots = np.flatnonzero(model.engine.slots.kind == ACTIVE)
    classes = model.engine.slots.cls[slots]
    units = _unit(model.engine.centres()[slots])
    pairs = [np.zeros((2, 0), np.int64)]
    marks = _heaviest(units)
    for first in range(0, slots.size, BLOCK):
        near = (marks[first : first + BLOCK] @ units.T).tocsr()
        for row in range(near.shape[0]):
            entries = slice(near.indptr[row], near.indptr[row + 1])
            other = classes[near.indices[entries]] != classes[first + row]
            found, nearness = near.indices[entries][other], near.data[entries][other]
            best = found[np.argsort(-nearness, kind="stable")[:CANDIDATES]]
            pairs.append(np.array([np.full(best.size, first + row), best], np.int64))
    a, b = np.concatenate(pairs, axis=1)
    cosine = np.asarray(units[a].multiply(units[b]).sum(axis=1)).ravel() if a.size else np.zeros(0)
    return _best_pairs(classes[a], classes[b], cosine, model.labels.objects(), n)


def _unit(centres: sp.csr_matrix) -> sp.csr_matrix:
    lengths = np.sqrt(np.asarray(centres.multiply(centres).sum(axis=1)).ravel())
    return sp.csr_matrix(sp.diags(1 / np.where(lengths > 0, lengths, 1.0)) @ centres)


def _heaviest(units: sp.csr_matrix) -> sp.csr_matrix:
    marks = units.copy()
    for row in range(units.shape[0]):
        part = marks.data[marks.indptr[row] : marks.indptr[row + 1]]
        if part.size > FINGERPRINT:
            part[np.argpartition(np.abs(part), part.size - FINGERPRINT)[: part.size - FINGERPRINT]] = 0
    marks.eliminate_zeros()
    return marks


def _best_pairs(
    a: Ints, b: Ints, cosine: Reals, names: NDArray[np.object_], n: int
) -> list[tuple[Label, Label, float]]:
    low, high = np.minimum(a, b), np.maximum(a, b)
    order = np.lexsort((high, low, -cosine))
    pairs: dict[tuple[int, int], float] = {}
    for i in order.tolist():
        pairs.setdefault((int(low[i]), int(high[i])), float(cosine[i]))
        if len(pairs) == n:
            break
    return [(names[x], names[y], value) for (x, y), value in pairs.items()]

"""Prototypes that join: M and mass add, R and the mutual information are mass-weighted means."""

from __future__ import annotations

import numpy as np

from prototide.core.engines.dots import empty_dots
from prototide.core.engines.merging import changes_of, involved, join, pairs_of
from prototide.core.engines.tables import ACTIVE, MERGED, Classes, Slots


def test_what_joins_adds_up_and_is_averaged_by_mass() -> None:
    rng = np.random.default_rng()
    M, R, pmi = rng.normal(size=(3, 3, 6))
    M[1] += 9 * M[0]
    M[2] += 9 * M[0]  # all three nearly alike
    mass = rng.uniform(1, 5, 3)
    one, none = np.zeros(1, np.int64), np.zeros(3, np.int64)
    slots = Slots(
        np.zeros(3, np.int32), np.full(3, ACTIVE, np.int8), mass.copy(), (M**2).sum(axis=1), none, none.copy(),
        np.array([1, 2, -1], np.int32),
    )  # fmt: skip
    classes = Classes(
        np.array([3], np.int32), np.array([-1], np.int32), one, one, one, one, one, one, np.zeros(1, np.int32)
    )
    counters, dots, rank = np.zeros(5, np.int64), empty_dots(np.array([5], np.int32)), np.arange(3, dtype=np.int32)
    dots.block(0)[:3, :3] = M @ M.T
    of, distance = pairs_of(np.zeros(1, np.int64), slots, classes, dots, rank)
    lengths = np.sqrt(slots.square)
    np.testing.assert_allclose(distance, (1 - M @ M.T / np.outer(lengths, lengths))[np.triu_indices(3, 1)])
    assert of.tolist() == [0, 0, 0]

    absorbed = join(0, 2.0, counters, slots, classes, dots, rank)
    assert {a: [b for b, _ in others] for a, others in absorbed.items()} == {0: [1, 2]}
    assert sorted(involved(absorbed)) == [0, 1, 2]
    assert classes.active[0] == 1
    assert counters[MERGED] == 2
    np.testing.assert_allclose(slots.mass[0], mass.sum())
    np.testing.assert_allclose(slots.square[0], (M.sum(axis=0) ** 2).sum())

    feature, slot = np.tile(np.arange(6), 3), np.repeat(np.arange(3, dtype=np.int32), 6)
    joined = {"M": M[0].copy(), "R": R[0].copy(), "pmi": pmi[0].copy()}
    for name, changes in changes_of(absorbed, slot, M.ravel(), R.ravel(), pmi.ravel())._asdict().items():
        for at, p, values in changes:
            assert p == 0
            np.add.at(joined[name], feature[at], values)
    np.testing.assert_allclose(joined["M"], M.sum(axis=0))
    np.testing.assert_allclose(joined["R"], mass @ R / mass.sum())
    np.testing.assert_allclose(joined["pmi"], mass @ pmi / mass.sum())

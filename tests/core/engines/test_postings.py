"""Posting lists against dictionaries: random operations, then everything must read the same."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from prototide.core.engines.postings import (
    add_to_centre,
    add_to_correction,
    clear,
    compacted,
    empty_holdings,
    empty_postings,
    find,
    gather,
    holdings_of,
    insert,
    products,
    remove,
    widened,
    with_slots,
)

FEATURES, SLOTS = 7, 9
features = st.lists(st.integers(0, FEATURES - 1), min_size=1, max_size=FEATURES, unique=True).map(sorted)
slots = st.integers(0, SLOTS - 1)


class PostingsAgainstDictionaries(RuleBasedStateMachine):
    """``model[slot][feature] = [M, R]``."""

    @initialize(seed=st.integers(0, 2**32 - 1))
    def begin(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.postings = widened(empty_postings(np.float64), FEATURES)
        self.holdings = with_slots(empty_holdings(), SLOTS)
        self.model: list[dict[int, list[float]]] = [{} for _ in range(SLOTS)]

    def _row(self, columns: list[int]) -> tuple[np.ndarray, np.ndarray]:
        return np.array(columns, np.int32), self.random.standard_normal(len(columns))

    @rule(columns=features, p=slots, weight=st.floats(0.1, 10))
    def attract(self, columns: list[int], p: int, weight: float) -> None:
        ix, x = self._row(columns)
        before = sum(m * m for m, _ in self.model[p].values())
        self.postings, self.holdings, change = add_to_centre(self.postings, self.holdings, ix, x, weight, p)
        for j, value in zip(columns, x, strict=True):
            self.model[p].setdefault(j, [0.0, 0.0])[0] += weight * value
        after = sum(m * m for m, _ in self.model[p].values())
        np.testing.assert_allclose(change, after - before, rtol=1e-9, atol=1e-9)

    @rule(columns=features, p=slots, weight=st.floats(-10, 10))
    def correct(self, columns: list[int], p: int, weight: float) -> None:
        ix, x = self._row(columns)
        rate = self.random.random(len(columns))
        self.postings, self.holdings = add_to_correction(self.postings, self.holdings, ix, x, rate, weight, p)
        for j, step in zip(columns, weight * rate * x, strict=True):
            self.model[p].setdefault(j, [0.0, 0.0])[1] += step

    @rule(p=slots)
    def free(self, p: int) -> None:
        clear(self.postings, self.holdings, p)
        self.model[p] = {}

    @rule()
    def compact(self) -> None:
        self.postings, self.holdings = compacted(self.postings, self.holdings)

    @rule(more=st.integers(0, 3))
    def widen(self, more: int) -> None:
        self.postings = widened(self.postings, self.postings.start.size + more)
        self.holdings = with_slots(self.holdings, self.holdings.start.size + more)

    @precondition(lambda self: any(self.model))
    @rule(data=st.data())
    def take_out_and_put_back(self, data: Any) -> None:
        p = data.draw(st.sampled_from([p for p in range(SLOTS) if self.model[p]]))
        j = data.draw(st.sampled_from(sorted(self.model[p])))
        remove(self.postings, j, p)
        at = find(self.postings, j, p)
        assert at < 0
        held = self.holdings.feature[self.holdings.start[p] : self.holdings.start[p] + self.holdings.length[p]]
        self.holdings.feature[self.holdings.start[p] : self.holdings.start[p] + held.size - 1] = held[held != j]
        self.holdings.length[p] -= 1
        self.postings, self.holdings, at = insert(self.postings, self.holdings, j, p, -1 - at)
        self.postings.M[at], self.postings.R[at] = self.model[p][j]

    @invariant()
    def everything_reads_the_same(self) -> None:
        if not hasattr(self, "model"):
            return
        ix, x = self._row(list(range(FEATURES)))
        for p, entries in enumerate(self.model):
            found, M, R, _ = gather(self.postings, self.holdings, p)
            assert found.tolist() == sorted(entries)
            expected = np.array([entries[j] for j in sorted(entries)]).reshape(-1, 2)
            np.testing.assert_allclose(np.column_stack([M, R]), expected, rtol=1e-9, atol=1e-12)
            centre, correction = products(self.postings, ix, x, p)
            np.testing.assert_allclose([centre, correction], x[sorted(entries)] @ expected, rtol=1e-9, atol=1e-9)

    @invariant()
    def lists_are_sorted_and_do_not_overlap(self) -> None:
        if not hasattr(self, "model"):
            return
        for lists in (self.postings, self.holdings):
            used = [(s, s + room) for s, room, n in zip(lists.start, lists.room, lists.length, strict=True) if room]
            assert all(n <= room for n, room in zip(lists.length, lists.room, strict=True))
            used.sort()
            assert all(end <= start for (_, end), (start, _) in itertools.pairwise(used))
            assert not used or used[-1][1] <= lists.end[0] <= lists[-1].size
        for start, length in zip(self.postings.start, self.postings.length, strict=True):
            assert (np.diff(self.postings.slot[start : start + length]) > 0).all()


PostingsAgainstDictionaries.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
TestPostingsAgainstDictionaries = PostingsAgainstDictionaries.TestCase


def test_an_entry_that_is_not_there_says_where_it_belongs() -> None:
    postings, holdings = widened(empty_postings(np.float32), 1), with_slots(empty_holdings(), 10)
    for p in (5, 1, 9):
        at = find(postings, 0, p)
        assert at < 0
        postings, holdings, _ = insert(postings, holdings, 0, p, -1 - at)
    start = postings.start[0]
    assert postings.slot[start : start + 3].tolist() == [1, 5, 9]
    assert [find(postings, 0, p) - start for p in (1, 5, 9)] == [0, 1, 2]


def test_holdings_are_rebuilt_from_entries_in_any_order() -> None:
    holdings = holdings_of(np.array([2, 0, 2], np.int32), np.array([4, 3, 1], np.int32), 4)
    lists = [holdings.feature[s : s + n].tolist() for s, n in zip(holdings.start, holdings.length, strict=True)]
    assert lists == [[3], [], [4, 1], []]

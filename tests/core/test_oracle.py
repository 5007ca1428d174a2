"""The engines against the rule written down once more, in float64 with explicit decay (`tests.core.oracle`)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prototide.core.parameters import rule_of
from tests.core.conftest import ENGINES
from tests.core.inspecting import prototypes, shared
from tests.core.oracle import Oracle
from tests.core.recording import Problem, classifier_parameters

problems = st.builds(
    Problem,
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 300),
    features=st.integers(4, 40),
    classes=st.integers(1, 8),
    batch=st.integers(1, 40),
    k=st.integers(1, 4),
    penalty=st.sampled_from([0.0, 0.1, 0.5]),
    half_life=st.sampled_from([None, 200.0, 30.0]),
    kernel=st.sampled_from(["hard", "linear", "softmax"]),
    update_rows=st.just(1000),  # a batch is a group
    idf=st.booleans(),
)


@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=40, deadline=None)
@given(problem=problems)
def test_learns_what_the_oracle_learns(engine: str, problem: Problem) -> None:
    ours = ENGINES[engine](**classifier_parameters(problem), dtype="float64")
    oracle = Oracle(rule_of(ours.get_params()), problem.features, problem.k)
    X, y = problem.stream()
    filled = np.diff(X.indptr) > 0
    dense, labels = X[filled].toarray().astype(float), y[filled].tolist()
    for first in range(0, len(labels), problem.batch):
        rows, answers = dense[first : first + problem.batch], labels[first : first + problem.batch]
        if first:
            assert ours.predict(rows).tolist() == [oracle.predict(row) for row in rows]
        ours.fit_batch(rows, answers)
        oracle.learn(list(rows), answers)
    mine = sorted(prototypes(ours), key=lambda p: (str(p.label), p.mass))
    theirs = [(c, p) for c, one in oracle.classes.items() for p in one.prototypes if p.active]
    theirs.sort(key=lambda pair: (str(pair[0]), pair[1].mass))
    assert [p.label for p in mine] == [c for c, _ in theirs]
    for ours_is, (_, theirs_is) in zip(mine, theirs, strict=True):
        np.testing.assert_allclose(ours_is.mass, theirs_is.mass, rtol=1e-9)
        np.testing.assert_allclose(ours_is.centre, theirs_is.M, rtol=1e-8, atol=1e-11)
        np.testing.assert_allclose(ours_is.correction, theirs_is.R, rtol=1e-8, atol=1e-10)
    common = shared(ours)
    np.testing.assert_allclose(common.mean_loss, oracle.mean_loss, rtol=1e-9)
    np.testing.assert_allclose(common.violation, oracle.violation, rtol=1e-8, atol=1e-11)

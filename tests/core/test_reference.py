"""The learner against the executable specification, number by number.

The specification lies beside the checkout and is run on fresh random streams, in float64 like the learner there. Its
recorded answers (`tests.core.recording`) stay with the project and are compared everywhere, in float32.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prototide.core import parameters
from prototide.core.lift import EuclideanLift
from prototide.core.rows import canonical_rows
from tests.core.conftest import ENGINES, MakeClassifier
from tests.core.inspecting import prototypes, shared
from tests.core.recording import (
    RECORDED,
    SPECIFICATION,
    Problem,
    classifier_parameters,
    replay,
    specification,
    specification_parameters,
)
from tests.core.streams import dense_stream, two_faced_class

MISSING = "THE SPECIFICATION ../shared/spec/reference.py IS NOT HERE: ONLY RECORDED RESULTS ARE COMPARED"
if not SPECIFICATION.exists():
    warnings.warn(MISSING, stacklevel=1)
specified = pytest.mark.skipif(not SPECIFICATION.exists(), reason=MISSING)


@pytest.fixture(autouse=True, scope="module")
def as_specified() -> Iterator[None]:
    """The specification knows no mutual information; `test_oracle` compares the rule that has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parameters, "PMI", 0.0)
        patch.setattr(parameters, "TAU_BESIDE_PMI", parameters.TAU)
        patch.setattr(parameters, "NOISE_ADAPT_FORGETTING", parameters.NOISE_ADAPT)
        yield


problems = st.builds(
    Problem,
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 500),
    features=st.integers(4, 60),
    classes=st.integers(1, 12),
    batch=st.integers(1, 300),
    k=st.integers(1, 4),
    penalty=st.sampled_from([0.0, 0.1, 0.5]),
    half_life=st.sampled_from([None, 200.0, 50.0]),
    kernel=st.sampled_from(["hard", "linear", "softmax"]),
    update_rows=st.sampled_from(["auto", 1, 7, 100]),
    idf=st.booleans(),
)


@pytest.fixture(scope="module")
def precise(request: pytest.FixtureRequest) -> ModuleType:
    """The specification in float64, in pytest's cache."""
    return specification(Path(request.config.cache.mkdir("specification")))  # type: ignore[union-attr]


@specified
@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(problem=problems)
def test_learns_and_predicts_what_the_specification_does(engine: str, precise: ModuleType, problem: Problem) -> None:
    ours = ENGINES[engine](**classifier_parameters(problem), dtype="float64")
    theirs = precise.StreamPrototypes(problem.features, **specification_parameters(problem))
    X, y = problem.stream()
    for first in range(0, problem.rows, problem.batch):
        rows, labels = X[first : first + problem.batch], y[first : first + problem.batch]
        if first:
            assert ours.predict(rows).tolist() == theirs.predict(rows).tolist()
        theirs.fit(rows, labels.tolist())
        ours.fit_batch(rows, labels)
    _assert_same_inside(ours, theirs)


def _assert_same_inside(ours: Any, theirs: Any) -> None:
    omega, active = theirs.S[0], np.flatnonzero(theirs.kind == 1)
    # by class and weight: the indexed engine gives a discarded trial's slot away only after the next maintenance
    active = active[np.lexsort([(theirs.q[active] / omega**2).round(6), theirs.n[active].round(6), theirs.cls[active]])]
    numbers = {name: number for number, name in enumerate(theirs.names)}
    mine = sorted(prototypes(ours), key=lambda p: (numbers[p.label], round(p.mass * omega, 6), round(p.square, 6)))
    assert [p.label for p in mine] == [theirs.names[c] for c in theirs.cls[active]]
    np.testing.assert_allclose([p.mass for p in mine], theirs.n[active] / omega, rtol=1e-9)
    np.testing.assert_allclose([p.square for p in mine], theirs.q[active] / omega**2, rtol=1e-7)
    np.testing.assert_allclose([p.centre for p in mine], theirs.M[:, active].T / omega, rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose([p.correction for p in mine], theirs.R[:, active].T / omega, rtol=1e-8, atol=1e-11)
    common = shared(ours)
    if ours.lambda_penalty > 0:  # else nothing learns from it, and none is kept
        np.testing.assert_allclose(common.mean_loss, theirs.S[2], rtol=1e-9)
    np.testing.assert_allclose(common.rows, theirs.S[1] / omega, rtol=1e-9)
    np.testing.assert_allclose(common.violation, theirs.G / omega, rtol=1e-8, atol=1e-11)
    if ours.idf:
        np.testing.assert_allclose(common.document_frequency, theirs.df / omega, rtol=1e-9)


@specified
@pytest.mark.parametrize(("merge_distance", "counted"), [(1e-9, "pruned"), (0.98, "num_merged")])
def test_merges_and_prunes_as_the_specification_does(
    make_classifier: MakeClassifier, precise: ModuleType, merge_distance: float, counted: str
) -> None:
    common = {"half_life": 30.0, "min_weight": 0.1, "update_rows": 16}
    ours = make_classifier(k_init=4, merge_threshold=merge_distance, truncation_threshold=0, dtype="float64", **common)
    theirs = precise.StreamPrototypes(6, k=4, merge_threshold=1 - merge_distance, **common)
    X, y = two_faced_class(0, 3000)
    still_comes = (np.arange(3000) < 1000) | (y == 1) | (X[:, [0]].toarray().ravel() > 0.5)  # one face of class 0 stays
    X, y = X[still_comes], y[still_comes]
    count = 0
    for first in range(0, y.size, 500):
        theirs.fit(X[first : first + 500], y[first : first + 500].tolist())
        count += ours.fit_batch(X[first : first + 500], y[first : first + 500])[counted]  # type: ignore[literal-required]
        _assert_same_inside(ours, theirs)
    assert count > 0


@specified
def test_lifts_dense_rows_as_the_specification_does(precise: ModuleType) -> None:
    ours, theirs = EuclideanLift(), precise.DenseLift()
    for seed in range(5):
        X, _ = dense_stream(seed, 20, 6)
        expected = theirs.fit_transform_batch(X)
        rows = canonical_rows(X)
        if seed == 0:
            ours.learn(rows, np.ones(20))
        lifted = ours.transform(rows).matrix().toarray()
        if seed > 0:
            ours.learn(rows, np.ones(20))
        np.testing.assert_allclose(lifted, np.roll(expected, 2, axis=1), rtol=1e-12, atol=1e-12)


@specified
def test_learns_euclidean_rows_as_the_specification_does(make_classifier: MakeClassifier, precise: ModuleType) -> None:
    lift, theirs = precise.DenseLift(), precise.StreamPrototypes(6, k=3, running_idf=False, update_rows=20)
    ours = make_classifier(distance="euclidean", dtype="float64", update_rows=20, truncation_threshold=0)
    correct = 0
    for batch in range(12):
        X, y = dense_stream(7, 240, 4, spread=2.0)
        X, y = X[20 * batch : 20 * batch + 20], y[20 * batch : 20 * batch + 20]
        lifted = np.roll(lift.fit_transform_batch(X), 2, axis=1)
        expected = theirs.predict(lifted).tolist() if batch else [None] * 20
        theirs.fit(lifted, y.tolist())
        assert ours.learn(X, y).labels == expected
        correct += sum(a == b for a, b in zip(expected, y.tolist(), strict=True))
    assert correct > 150


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.json")), ids=lambda path: path.stem)
def test_predicts_what_was_recorded_of_the_specification(make_classifier: MakeClassifier, path: Path) -> None:
    recorded = json.loads(path.read_text())
    problem = Problem(**recorded["problem"])
    X, _ = problem.stream()
    assert X.sum() == pytest.approx(recorded["sum_of_input"], rel=1e-9), (
        "the stream of this seed is another: NumPy's generator changed"
    )
    ours = make_classifier(**classifier_parameters(problem))
    assert replay(problem, ours.predict, ours.fit_batch) == recorded["predictions"]
    np.testing.assert_allclose([p.mass for p in prototypes(ours)], recorded["masses"], rtol=1e-3)
    if ours.lambda_penalty > 0:
        np.testing.assert_allclose(shared(ours).mean_loss, recorded["mean_loss"], rtol=1e-3)


def test_recorded_results_are_there() -> None:
    assert len(list(RECORDED.glob("*.json"))) >= 6


@specified
def test_recorded_results_are_those_of_the_specification(precise: ModuleType) -> None:
    for path in sorted(RECORDED.glob("*.json")):
        recorded = json.loads(path.read_text())
        problem = Problem(**recorded["problem"])
        theirs = precise.StreamPrototypes(problem.features, **specification_parameters(problem))
        assert (
            replay(problem, theirs.predict, lambda rows, labels, fit=theirs.fit: fit(rows, labels.tolist()))
            == recorded["predictions"]
        )

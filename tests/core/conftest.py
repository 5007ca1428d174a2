"""The contract is run for both of the CPU's engines through ``make_classifier``."""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest

from prototide.core import FastKMeansClassifier

MakeClassifier = Callable[..., FastKMeansClassifier]


class PlainClassifier(FastKMeansClassifier):
    """The same on the plain engine."""

    _engine = "plain"


class DeviceClassifier(FastKMeansClassifier):
    """The same on the engine for devices, here torch's CPU."""

    _engine = "gpu"


# One thread: results do not depend on it (test_threads.py), and tiny groups of rows are not worth a second.
ENGINES: dict[str, MakeClassifier] = {
    "plain": functools.partial(PlainClassifier, n_threads=1),
    "gpu": functools.partial(DeviceClassifier, n_threads=1),
    "indexed": functools.partial(FastKMeansClassifier, n_threads=1),
}
DISTANCES = pytest.mark.parametrize("distance", ["cosine", "euclidean"])


# The engine for devices is slow on torch's CPU: the oracle, the specification and tests of its own compare it instead.
@pytest.fixture(params=["plain", "indexed"])
def make_classifier(request: pytest.FixtureRequest) -> MakeClassifier:
    """Builds a classifier from the constructor's parameters, on each engine in turn."""
    return ENGINES[request.param]

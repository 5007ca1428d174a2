"""Half precision in the indexed engine: rounded as the formats round, and the scores of the plain engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from prototide.core import FastKMeansClassifier
from prototide.core.engines.half import rounded_entry
from tests.core.conftest import PlainClassifier
from tests.core.streams import text_stream


def test_entries_are_rounded_as_float16_and_bfloat16_are() -> None:
    random = np.random.default_rng(0)
    values = np.concatenate([
        np.arange(4096) * 2.0**-26,  # below float16's smallest normal number, ties among them
        1 + np.arange(4096) * 2.0**-12,
        random.standard_normal(20_000) * 10.0 ** random.uniform(-9, 2, 20_000),
    ]).astype(np.float32)  # fmt: skip
    values = np.concatenate([values, -values])
    values = np.append(values, np.float32([65_519, 65_520, 1e30, -65_519, -65_520, -1e30]))  # beyond float16's largest
    one, nothing = np.float32(1), np.float32(0)
    for bits, expected in (
        (10, values.clip(-65_504, 65_504).astype(np.float16).astype(np.float32)),
        (7, torch.from_numpy(values).bfloat16().float().numpy()),
    ):
        found = [rounded_entry(value, nothing, one, 0.0, bits) for value in values]
        np.testing.assert_array_equal(np.array(found, np.float32), expected)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("parameters", [{"lambda_penalty": 0.0, "k_init": 1}, {}, {"half_life": 300.0}], ids=str)
def test_learning_in_half_precision_is_the_plain_engines(dtype: str, parameters: dict[str, Any]) -> None:
    X, y = text_stream(11, rows=1500, features=60, classes=8)
    indexed = FastKMeansClassifier(n_threads=1, dtype=dtype, **parameters)
    plain = PlainClassifier(n_threads=1, dtype=dtype, **parameters)
    for first in range(0, 1200, 200):
        ours, theirs = (model.learn(X[first : first + 200], y[first : first + 200]) for model in (indexed, plain))
        assert ours.labels == theirs.labels
    assert indexed.engine == "indexed"
    single = FastKMeansClassifier(n_threads=1, **parameters)
    single.fit_batch(X[:1200], y[:1200])
    scores, expected = indexed.decision_function(X[1200:]), plain.decision_function(X[1200:])
    np.testing.assert_allclose(scores, expected, atol=1e-3)
    assert np.abs(scores - expected).mean() < 0.05 * np.abs(scores - single.decision_function(X[1200:])).mean()
    indexed.freeze()
    np.testing.assert_allclose(indexed.decision_function(X[1200:]), scores, atol=1e-3)


def test_a_float16_model_whose_entries_are_clipped_answers_as_the_plain_engine_and_frozen() -> None:
    X, y = text_stream(3, rows=1500, features=60, classes=8)
    indexed, plain = (
        make(n_threads=1, dtype="float16", lambda_penalty=1000.0) for make in (FastKMeansClassifier, PlainClassifier)
    )
    for model in (indexed, plain):
        model.fit_batch(X[:400], y[:400])
    scores, expected = indexed.decision_function(X[1200:]), plain.decision_function(X[1200:])
    assert np.abs(expected).max() > 65_504
    np.testing.assert_allclose(scores, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max())
    indexed.freeze()
    np.testing.assert_allclose(indexed.decision_function(X[1200:]), scores, rtol=1e-5, atol=1.0)

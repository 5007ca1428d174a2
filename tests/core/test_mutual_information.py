"""The part of the correction that no error has to be made for (docs/model.md, step 5)."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp

from tests.core.conftest import MakeClassifier
from tests.core.inspecting import prototypes, shared
from tests.core.streams import text_stream

COMMON, OWN, OTHER = 0, 1, 2


def rows_of_two_classes(n: int) -> tuple[sp.csr_matrix, list[str]]:
    """Feature COMMON in every row; OWN in those of class "a", OTHER in those of class "b"."""
    y = ["a", "b"] * (n // 2)
    X = sp.csr_matrix([[1.0, label == "a", label == "b"] for label in y])
    return X, y


@pytest.mark.parametrize("idf", [True, False])
def test_a_feature_of_its_own_tells_more_than_one_that_all_have(make_classifier: MakeClassifier, idf: bool) -> None:
    model = make_classifier(idf=idf)
    model.fit_batch(*rows_of_two_classes(200))
    first, common = prototypes(model)[0], shared(model)
    told = first.information
    assert told[OWN] > 1.3 * told[COMMON] > 0
    assert told[OTHER] == 0
    expected = common.total[OWN] * first.mass / common.rows
    assert told[OWN] == pytest.approx(0.25 * np.log(1 + first.centre[OWN] / (expected + 1)), rel=0.02)


@pytest.mark.parametrize("parameters", [{"lambda_penalty": 0.0}, {"distance": "euclidean"}])
def test_pure_k_means_and_euclidean_models_go_without(
    make_classifier: MakeClassifier, parameters: dict[str, float]
) -> None:
    model = make_classifier(**parameters)
    model.fit_batch(*rows_of_two_classes(40))
    assert not any(p.information.any() for p in prototypes(model))


def test_corrections_may_be_switched_on_later(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(3, 400)
    model = make_classifier(lambda_penalty=0.0)
    model.fit_batch(X[:200], y[:200])
    model.set_params(lambda_penalty=0.1)
    model.fit_batch(X[200:], y[200:])
    assert any(p.information.any() for p in prototypes(model))
    assert np.isfinite(model.decision_function(X)).all()
    assert model.score(X, y) > 0.8

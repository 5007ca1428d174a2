from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from prototide.core import FastKMeansClassifier
from prototide.core.engines.tables import HARD, LINEAR, SOFTMAX
from prototide.core.parameters import check_parameters, prototype_limits, rule_of
from tests.core.conftest import MakeClassifier
from tests.core.inspecting import fingerprint, prototypes
from tests.core.streams import text_stream, two_faced_class

WRONG: list[tuple[str, Any]] = [
    ("k_init", 0), ("k_init", 1.5), ("k_init", True), ("k_init", None),
    ("k_list", {1: 0}), ("k_list", {1.5: 2}), ("k_list", [0]), ("k_list", "12"), ("k_list", 3), ("k_list", {True: 1}),
    ("init_method", "k-means"), ("distance", "manhattan"), ("dtype", "int8"), ("dtype", np.float32),
    ("soft", 1), ("soft", None), ("soft_type", "relu"),
    ("temperature", 0.0), ("temperature", -1), ("temperature", float("nan")), ("temperature", float("inf")),
    ("temperature", "1"),
    ("lambda_penalty", -0.1), ("lambda_penalty", None), ("lambda_penalty", float("inf")),
    ("merge_threshold", -0.1), ("merge_threshold", "0.1"), ("relative_merge", None),
    ("percentile_threshold", 1.1), ("percentile_threshold", -0.1),
    ("truncation_threshold", 1.0), ("truncation_threshold", -1e-9), ("truncation_threshold", None),
    ("min_weight", -1), ("batch_size", 0), ("batch_size", 1.0),
    ("n_threads", 0), ("n_threads", -2), ("n_threads", 1.5),
    ("random_state", "42"), ("random_state", -1), ("random_state", 2**32), ("random_state", 1.5),
    ("max_iters", 0), ("tol", -1), ("half_life", 0), ("half_life", -5.0), ("half_life", float("nan")),
    ("idf", "yes"), ("update_rows", 0), ("update_rows", "all"), ("update_rows", 2.5),
    ("memory_budget_bytes", 0), ("memory_budget_bytes", -1), ("memory_budget_bytes", 1e9),
    ("memory_budget_bytes", "1GB"), ("memory_budget_bytes", True),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), WRONG, ids=[f"{name}={value!r}" for name, value in WRONG])
def test_a_wrong_parameter_is_named_with_its_value_at_first_use(
    make_classifier: MakeClassifier, name: str, value: Any
) -> None:
    model = make_classifier(**{name: value})  # scikit-learn's convention: the constructor checks nothing
    for use in (model.fit_batch, model.fit, model.learn):
        with pytest.raises(ValueError) as error:
            use(np.eye(2), [0, 1])
        assert str(error.value).startswith(f"{name}={value!r} is not allowed: it must be ")


def test_the_defaults_are_those_of_the_product_description() -> None:
    defaults = {name: p.default for name, p in inspect.signature(FastKMeansClassifier).parameters.items()}
    check_parameters(defaults)
    assert defaults == {
        "k_init": 3, "k_list": None, "init_method": "kmeans++", "distance": "cosine", "dtype": "float32",
        "soft": True, "soft_type": "linear", "temperature": 1.0, "lambda_penalty": 0.1, "merge_threshold": None,
        "relative_merge": False, "percentile_threshold": None, "truncation_threshold": 1e-3, "min_weight": 1e-3,
        "batch_size": 10240, "n_threads": -1, "random_state": 42, "max_iters": 50, "tol": 1e-4, "half_life": None,
        "idf": True, "update_rows": "auto", "novelty": None, "forget_classes": False, "memory_budget_bytes": None,
    }  # fmt: skip


def test_the_rule_takes_the_parameters_in_its_units() -> None:
    def rule(**changed: Any) -> Any:
        return rule_of(FastKMeansClassifier(**changed).get_params())

    assert rule().correction == pytest.approx(1.0)
    assert rule().merge_distance == 0.02
    assert not rule(relative_merge=True).relative_merge  # a fraction of nothing
    assert rule(merge_threshold=0.5, relative_merge=True).relative_merge
    assert (rule(soft=False).kernel, rule().kernel, rule(soft_type="softmax").kernel) == (HARD, LINEAR, SOFTMAX)
    assert rule(soft_type="softmax", temperature=3.0).width == pytest.approx(0.3)
    assert rule(half_life=1.0).decay == 2
    assert not rule(distance="euclidean").idf


def test_limits_come_from_a_dict_a_list_or_the_default() -> None:
    assert prototype_limits(["a", 1, "1"], 3, None) == [3, 3, 3]
    assert prototype_limits(["a", 1, "1"], 3, {"a": 5, "1": 2}) == [5, 3, 2]
    assert prototype_limits(["a", 1, "1"], 3, [7, 1]) == [7, 1, 3]


@pytest.mark.parametrize(("parameters", "most"), [({"k_init": 1}, 1), ({"k_init": 2}, 2), ({"k_init": 5}, 5)])
def test_no_class_grows_beyond_its_limit(
    make_classifier: MakeClassifier, parameters: dict[str, Any], most: int
) -> None:
    X, y = two_faced_class(0, 1500, sides=6)
    model = make_classifier(**parameters, merge_threshold=0)
    model.fit_batch(X, y)
    grown = [sum(p.label == c for p in prototypes(model)) for c in (0, 1)]
    assert max(grown) == grown[0] <= most
    assert grown[0] > 1 or most == 1


@pytest.mark.parametrize("k_list", [{0: 1, 77: 9}, [1]])
def test_a_class_may_have_a_limit_of_its_own(make_classifier: MakeClassifier, k_list: Any) -> None:
    X, y = two_faced_class(0, 1500)
    first = int(np.flatnonzero(y == 0)[0])
    X, y = X[first:], y[first:]  # class 0 comes first
    model = make_classifier(k_init=4, k_list=k_list, merge_threshold=0, max_iters=2)
    model.fit_batch(X, y)
    assert sum(p.label == 0 for p in prototypes(model)) == 1
    assert [sum(p.label == c for p in prototypes(model.fit(X, y))) for c in (0, 1)] == [1, 4]


def test_set_params_takes_effect_in_the_next_call(make_classifier: MakeClassifier) -> None:
    X, y = two_faced_class(1, 2000)
    model = make_classifier(k_init=1)
    model.fit_batch(X[:1000], y[:1000])
    assert len(prototypes(model)) == 2
    model.set_params(k_init=3)
    model.fit_batch(X[1000:], y[1000:])
    assert len(prototypes(model)) > 2
    before = fingerprint(model, parameters=False)
    model.set_params(temperature=-1.0)
    with pytest.raises(ValueError, match=r"temperature=-1\.0"):
        model.fit_batch(X, y)
    model.set_params(temperature=1.0)
    assert fingerprint(model, parameters=False) == before


def test_set_params_may_change_the_precision(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(0, 200)
    model = make_classifier()
    model.fit_batch(X, y)
    for changed in ({"dtype": "float64"}, {"dtype": "bfloat16"}):
        model.set_params(**changed)
        model.fit_batch(X, y)
        restored = type(model).from_state(*model.state())
        np.testing.assert_array_equal(restored.predict_proba(X), model.predict_proba(X))


def test_a_model_answers_the_same_after_a_restart_when_set_params_changed_its_probabilities(
    make_classifier: MakeClassifier,
) -> None:
    X, y = text_stream(0, 200)
    model = make_classifier()
    model.fit_batch(X, y)
    model.set_params(soft_type="softmax")
    model.fit_batch(X, y)
    restored = type(model).from_state(*model.state())
    np.testing.assert_array_equal(restored.predict_proba(X), model.predict_proba(X))


def test_set_params_cannot_change_the_distance_of_a_model_that_has_learned(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(0, 200)
    model = make_classifier()
    model.fit_batch(X, y)
    model.set_params(distance="euclidean")
    with pytest.raises(ValueError, match="distance"):
        model.fit_batch(X, y)


@pytest.mark.parametrize(("before", "after"), [("cosine", "euclidean"), ("euclidean", "cosine")])
def test_set_params_may_change_the_distance_of_a_model_that_has_only_predicted(
    make_classifier: MakeClassifier, before: str, after: str
) -> None:
    X, y = text_stream(0, 200)
    model, expected = make_classifier(distance=before), make_classifier(distance=after)
    model.predict_top(X, 1)
    model.set_params(distance=after)
    for each in (model, expected):
        each.fit_batch(X, y)
    assert fingerprint(model) == fingerprint(expected)


def test_parameters_may_be_numpy_scalars(make_classifier: MakeClassifier) -> None:
    parameters = {"soft": np.bool_(False), "distance": np.str_("euclidean"), "idf": np.bool_(True)}  # of a search
    model = make_classifier(**parameters)
    model.fit_batch(np.eye(2), [0, 1])
    assert model.predict(np.eye(2)).tolist() == [0, 1]


def test_get_params_and_clone_give_the_constructors_parameters(make_classifier: MakeClassifier) -> None:
    model = make_classifier(k_list={"a": 2}, half_life=5.0)
    model.fit_batch(np.eye(2), ["a", "b"])
    copy = clone(model)
    assert copy.get_params() == model.get_params()
    assert not hasattr(copy, "classes_")

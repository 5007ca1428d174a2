from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from prototide.core import FastKMeansClassifier
from tests.core.conftest import MakeClassifier
from tests.core.inspecting import fingerprint
from tests.core.streams import text_stream

MODELS = pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"distance": "euclidean"},
        {"dtype": "float64", "half_life": 60.0},
        {"dtype": "bfloat16", "soft_type": "softmax"},
        {"k_list": {0: 2, "0": 1}, "soft": False, "update_rows": 5},
        {"k_list": [1, 2], "percentile_threshold": 0.5, "merge_threshold": 0.5},
    ],
    ids=str,
)


@MODELS
def test_a_restored_model_continues_to_the_last_bit(
    make_classifier: MakeClassifier, parameters: dict[str, Any]
) -> None:
    X, y = text_stream(0, 2600)
    labels = [str(label) if label == 3 else int(label) for label in y]
    model = make_classifier(**parameters)
    for first in range(0, 1300, 100):
        model.fit_batch(X[first : first + 100], labels[first : first + 100])
    arrays, metadata = model.state()
    restored = type(model).from_state(arrays, json.loads(json.dumps(metadata)))
    assert fingerprint(restored) == fingerprint(model)
    assert restored.get_params() == model.get_params()
    for first in range(1300, 2600, 100):
        rows = slice(first, first + 100)
        one, other = model.learn(X[rows], labels[rows], top_k=2), restored.learn(X[rows], labels[rows], top_k=2)
        assert (one.labels, one.top_labels, one.stats) == (other.labels, other.top_labels, other.stats)
        np.testing.assert_array_equal(one.prototypes, other.prototypes)
    assert fingerprint(restored) == fingerprint(model)


def test_taking_the_state_changes_nothing_and_gives_a_copy(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(1, 600)
    watched, other = make_classifier(), make_classifier()
    for first in range(0, 600, 50):
        watched.fit_batch(X[first : first + 50], y[first : first + 50])
        other.fit_batch(X[first : first + 50], y[first : first + 50])
        arrays, metadata = watched.state()
        for array in arrays.values():
            if array.flags.writeable:
                array[...] = 7
        metadata["labels"].append("not there")
    assert fingerprint(watched) == fingerprint(other)


def test_a_restored_model_does_not_write_into_what_it_came_from(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(1, 300)
    model = make_classifier()
    model.fit_batch(X, y)
    arrays, metadata = model.state()
    before = {name: array.copy() for name, array in arrays.items()}
    for array in arrays.values():
        array.flags.writeable = False
    restored = type(model).from_state(arrays, metadata)
    restored.fit_batch(X, y + 3)
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, before[name])


def test_equal_models_have_equal_states_whatever_their_history(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(2, 500)
    one, other = make_classifier(), make_classifier()
    for first in range(0, 500, 100):
        one.fit_batch(X[first : first + 100], y[first : first + 100])
        other.fit_batch(X[first : first + 100], y[first : first + 100])
        other.predict_top(X, 2)
        other = type(other).from_state(*other.state())
    assert fingerprint(one) == fingerprint(other)


def test_the_state_of_a_new_model_is_one_too(make_classifier: MakeClassifier) -> None:
    model = make_classifier(k_init=2)
    arrays, metadata = model.state()
    restored = type(model).from_state(arrays, json.loads(json.dumps(metadata)))
    X, y = text_stream(3, 100)
    fresh = make_classifier(k_init=2)
    restored.fit_batch(X, y)
    fresh.fit_batch(X, y)
    assert fingerprint(restored) == fingerprint(fresh)


@pytest.mark.parametrize("k_list", [{np.int64(3): np.int32(2)}, [np.int64(2), 1]])
def test_arrays_are_plain_numbers_and_metadata_is_json(make_classifier: MakeClassifier, k_list: Any) -> None:
    model = make_classifier(k_init=np.int64(2), temperature=np.float32(1.0), k_list=k_list)
    model.fit_batch(np.eye(3), np.array([1, 2, 3], np.int16))
    arrays, metadata = model.state()
    assert all(array.dtype.kind in "biuf" for array in arrays.values())
    assert json.loads(json.dumps(metadata, allow_nan=False)) == metadata


def test_a_generator_object_as_random_state_does_not_spoil_the_state(make_classifier: MakeClassifier) -> None:
    model = make_classifier(random_state=np.random.RandomState(0)).fit(np.eye(3), [0, 1, 2])
    json.dumps(model.state()[1])


def test_a_state_of_another_format_is_refused(make_classifier: MakeClassifier) -> None:
    arrays, metadata = make_classifier().state()
    with pytest.raises(ValueError, match="state format 99 is not"):
        FastKMeansClassifier.from_state(arrays, metadata | {"format": 99})


@MODELS
@pytest.mark.parametrize("way", ["pickle", "deepcopy", "snapshot", "into room"])
def test_models_can_be_pickled_and_copied(
    make_classifier: MakeClassifier, parameters: dict[str, Any], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prototide.core.model.LARGE_BYTES", 1)  # small ones find their place, too
    X, y = text_stream(4, 200)
    model = make_classifier(**parameters)
    for _ in range(2):  # empty, then with content
        ways: dict[str, Callable[[Any], Any]] = {
            "pickle": lambda one: pickle.loads(pickle.dumps(one)),
            "deepcopy": copy.deepcopy,
            "snapshot": lambda one: one.snapshot(),
            "into room": lambda one: one.snapshot(one.snapshot_room()),
        }
        other = ways[way](model)
        assert fingerprint(other) == fingerprint(model)
        before = fingerprint(model)
        other.fit_batch(X, y)
        assert fingerprint(model) == before
        model.fit_batch(X, y)
        assert fingerprint(other) == fingerprint(model)


def test_room_that_does_not_fit_any_more_is_left(
    make_classifier: MakeClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prototide.core.model.LARGE_BYTES", 1)
    X, y = text_stream(4, 200)
    model = make_classifier()
    model.fit_batch(X[:20], y[:20])
    room = model.snapshot_room()
    model.fit_batch(X, y)
    assert fingerprint(model.snapshot(room)) == fingerprint(model)


def test_entries_that_cancelled_out_are_kept_so_that_sums_keep_their_order(make_classifier: MakeClassifier) -> None:
    classes = 70
    y = np.arange(classes)

    def rows(shared: float) -> NDArray[np.float64]:
        X = np.zeros((classes, 1 + 3 * classes))
        np.put_along_axis(X, 1 + 3 * y[:, None] + np.arange(3), 1.0, 1)
        X[:, 0] = shared
        return X

    model = make_classifier(lambda_penalty=0, idf=False, k_init=1, update_rows=classes, dtype="float64")
    model.fit_batch(rows(1.0), y)
    model.fit_batch(rows(-1.0)[:12], y[:12])
    restored = type(model).from_state(*model.state())
    for _ in range(15):
        for each in (model, restored):
            each.fit_batch(rows(0.0), y)
    Q = np.random.default_rng(0).random((40, 1 + 3 * classes))
    np.testing.assert_array_equal(model.decision_function(Q), restored.decision_function(Q))

"""`forget_classes`: a class whose last prototype has faded is gone, and new when it is seen again."""

from __future__ import annotations

import numpy as np

from prototide.core.labels import Labels
from tests.core.conftest import MakeClassifier
from tests.core.inspecting import fingerprint, prototypes

FADES = {"half_life": 50.0, "min_weight": 1e-3}  # after some 500 rows of others


def others(rows: int) -> tuple[np.ndarray, list[str]]:
    """Rows of two classes in the columns 1 and 2."""
    return np.tile(np.eye(4)[1:3], (rows // 2, 1)), ["b", "c"] * (rows // 2)


def test_a_faded_class_is_forgotten_and_is_new_when_seen_again(make_classifier: MakeClassifier) -> None:
    model = make_classifier(**FADES, forget_classes=True)
    model.fit_batch(np.eye(4)[:1], ["a"])
    stats = model.fit_batch(*others(1400))
    assert model.classes_.tolist() == ["b", "c"]
    assert (stats["classes"], stats["active_centroids"]) == (2, 2)
    assert stats["pruned"] == 1
    assert {prototype.label for prototype in prototypes(model)} == {"b", "c"}
    assert model.predict(np.eye(4)[1:3]).tolist() == ["b", "c"]
    assert model.decision_function(np.eye(4)).shape == (4,)
    assert model.predict_proba(np.eye(4)).shape == (4, 2)
    again = model.fit_batch(np.eye(4)[[0]], ["a"])
    assert (again["new_classes"], again["born"]) == (1, 1)
    assert model.learn(np.eye(4)[[0]], None).labels == ["a"]
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.predict_proba(np.eye(4)).argmax(axis=1)[:3].tolist() == [0, 1, 2]


def test_without_it_the_last_prototype_of_a_class_stays(make_classifier: MakeClassifier) -> None:
    model = make_classifier(**FADES)
    model.fit_batch(np.eye(4)[:1], ["a"])
    model.fit_batch(*others(1400))
    assert model.classes_.tolist() == ["a", "b", "c"]
    assert model.predict(np.eye(4)[:1]).tolist() == ["a"]


def test_a_prediction_made_just_before_its_class_was_forgotten_still_names_it(make_classifier: MakeClassifier) -> None:
    model = make_classifier(**FADES, forget_classes=True)
    model.fit_batch(np.eye(4)[:1], ["a"])
    X, y = others(1400)
    learned = model.learn(np.vstack([np.eye(4)[:1], X]), [None, *y], top_k=2)
    assert learned.labels[0] == "a"
    assert "a" not in model.classes_.tolist()
    assert all(label in ("b", "c") for label, _ in model.moved_classes(5))


def test_what_fades_during_fit_is_forgotten_by_fit_and_not_by_the_next_reader(make_classifier: MakeClassifier) -> None:
    X, y = others(3000)
    model = make_classifier(half_life=20.0, forget_classes=True, max_iters=1, update_rows=1)
    model.fit(np.vstack([np.eye(4)[:1], X]), ["a", *y])
    assert model.classes_.tolist() == ["b", "c"]
    before = fingerprint(model)
    model.predict_top(X[:2], 1)
    assert fingerprint(model) == before


def test_numbers_of_forgotten_classes_are_used_again() -> None:
    labels = Labels(["a", 1, "b"])
    labels.forget([0, 1])
    assert (len(labels), labels.names) == (1, [None, None, "b"])
    assert labels.numbers(["a", 1, "b"]).tolist() == [-1, -1, 2]
    assert labels.add(["x", "b", "y", "z"]) == 3
    assert labels.names == ["x", "y", "b", "z"]
    assert labels.sorted_names() == ["b", "x", "y", "z"]
    labels.forget([1])
    assert Labels(labels.names).names == labels.names
    assert len(Labels(labels.names)) == 3


def test_endless_new_classes_do_not_grow_the_model(make_classifier: MakeClassifier) -> None:
    model = make_classifier(**FADES, forget_classes=True, idf=False)
    X = np.eye(8)
    for call in range(60):
        rows = np.arange(128) % 8
        model.fit_batch(X[rows], [f"{call // 8}-{row}" for row in rows])
    assert len(model.classes_) <= 24
    assert model.state()[0]["engine.class.active"].size <= 32
    copy = type(model).from_state(*model.state())
    assert copy.classes_.tolist() == model.classes_.tolist()
    for each in (model, copy):
        each.fit_batch(X, [f"new {row}" for row in range(8)])
    assert fingerprint(copy, parameters=False) == fingerprint(model, parameters=False)

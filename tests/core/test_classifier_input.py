"""What the classifier takes: labels, weights, containers; and what it refuses without a trace. For every engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from tests.core.conftest import DISTANCES, MakeClassifier
from tests.core.inspecting import fingerprint, prototypes, shared
from tests.core.streams import dense_stream, text_stream

# --- labels ---


def test_ints_and_strings_live_in_one_model(make_classifier: MakeClassifier) -> None:
    model = make_classifier(update_rows=1)
    labels = [1, "1", -5, "", "é\n"]
    model.fit_batch(np.eye(5), labels)
    assert model.classes_.tolist() == [-5, 1, "", "1", "é\n"]
    assert [type(label) for label in model.classes_] == [int, int, str, str, str]
    learned = model.learn(np.eye(5), None)
    assert learned.labels == labels
    assert [type(label) for label in learned.labels] == [int, str, int, str, str]
    assert model.predict(np.eye(5)).tolist() == labels


@pytest.mark.parametrize("labels", [[2**53, 2**53 + 1], [2**63 - 1, -(2**63)], ["a", "a\0"], ["a", "A"], [0, "0"]])
def test_labels_that_look_alike_are_different_classes(make_classifier: MakeClassifier, labels: list[Any]) -> None:
    model = make_classifier()
    model.fit_batch(np.eye(2), labels)
    assert model.learn(np.eye(2), None).labels == labels
    assert model.predict(np.eye(2)).tolist() == labels
    assert sorted(model.classes_.tolist(), key=str) == sorted(labels, key=str)
    restored = type(model).from_state(*model.state())
    assert restored.predict(np.eye(2)).tolist() == labels


def test_labels_answer_in_their_own_type(make_classifier: MakeClassifier) -> None:
    for labels, dtype in (([3, 4], np.int64), (["x", "yy"], np.str_), (np.array([3, 4], np.uint8), np.int64)):
        model = make_classifier().fit(np.eye(2), labels)
        assert np.issubdtype(model.predict(np.eye(2)).dtype, dtype)
        assert np.issubdtype(model.classes_.dtype, dtype)
        assert np.issubdtype(model.predict(sp.csr_matrix((0, 2))).dtype, dtype)


# --- weights ---


def test_weight_one_is_no_weight(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(5, 150)
    without, ones = make_classifier(), make_classifier()
    without.fit_batch(X, y)
    ones.fit_batch(X, y, np.ones(150))
    assert fingerprint(without) == fingerprint(ones)


def test_weight_two_attracts_like_the_row_twice(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(5, 150)
    weight = np.where(np.arange(150) % 4 == 0, 2, 1)
    twice = np.repeat(np.arange(150), weight)
    parameters = {"k_init": 1, "lambda_penalty": 0.0, "idf": False, "dtype": "float64"}
    weighted, repeated = make_classifier(**parameters), make_classifier(**parameters)
    weighted.fit_batch(X, y, weight)
    repeated.fit_batch(X[twice], y[twice])
    assert shared(weighted).rows == shared(repeated).rows == weight.sum()
    for one, other in zip(prototypes(weighted), prototypes(repeated), strict=True):
        assert one.mass == other.mass
        np.testing.assert_allclose(one.centre, other.centre, rtol=1e-12)


def test_weight_two_with_corrections_is_close_to_the_row_twice(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(6, 600)
    weighted, repeated = make_classifier(), make_classifier()
    weighted.fit_batch(X[:400], y[:400], np.full(400, 2.0))
    repeated.fit_batch(X[np.repeat(np.arange(400), 2)], np.repeat(y[:400], 2))
    assert sum(p.mass for p in prototypes(weighted)) == pytest.approx(800, rel=1e-3)
    assert np.mean(weighted.predict(X[400:]) == repeated.predict(X[400:])) > 0.9


@pytest.mark.parametrize(
    "size",
    [1e-200, 1e-30, 1e30, 1e200],
)
def test_extreme_weights_leave_the_model_finite(make_classifier: MakeClassifier, size: float) -> None:
    X, y = text_stream(6, 100)
    model = make_classifier()
    model.fit_batch(X, y, np.where(np.arange(100) % 2, size, 1.0))
    model.fit_batch(X, y)
    assert np.isfinite(model.decision_function(X)).all()
    assert np.isfinite([p.square for p in prototypes(model)]).all()


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ([1.0, -1.0, 1.0], r"sample_weight\[1\] is -1.0"),
        ([1.0, 1.0, np.nan], r"sample_weight\[2\] is nan"),
        ([np.inf, 1.0, 1.0], r"sample_weight\[0\] is inf"),
        ([1.0, 1.0], r"expected \(3,\)"),
        ([[1.0], [1.0], [1.0]], r"expected \(3,\)"),
        (["a", "b", "c"], "sample_weight must hold one real number per row"),
        ([10**400, 1, 1], "sample_weight must hold one real number per row"),
        (np.ma.masked_equal([1.0, 2.0, 1.0], 2.0), "sample_weight is a masked array with masked weights"),
    ],
)
def test_wrong_weights_are_named(make_classifier: MakeClassifier, weight: list[Any], message: str) -> None:
    model = make_classifier()
    for learn in (model.fit_batch, model.learn, model.fit):
        with pytest.raises(ValueError, match=message):
            learn(np.eye(3), [0, 1, 2], sample_weight=weight)


# --- a rejected batch ---


REJECTED: list[tuple[str, Any, Any, Any]] = [
    ("NaN in a row", [[1.0, np.nan]], [7], None),
    ("infinity in a row", sp.csr_matrix([[1.0, np.inf]]), [7], None),
    ("too few labels", np.eye(2), [7], None),
    ("one-hot labels", np.eye(2), np.eye(2), None),
    ("fractions as labels", np.eye(2), [0.5, 1.0], None),
    ("a label of another type", np.eye(2), [7, b"x"], None),
    ("an int beyond 64 bits", np.eye(2), [7, 2**63], None),
    ("a negative weight", np.eye(2), [7, 8], [1, -1]),
    ("three dimensions", np.ones((2, 2, 2)), [7, 8], None),
    ("text instead of numbers", np.array([["a", "b"]]), [7], None),
    ("complex numbers", np.array([[1j, 2]]), [7], None),
]


@DISTANCES
@pytest.mark.parametrize(("X", "y", "weight"), [case[1:] for case in REJECTED], ids=[case[0] for case in REJECTED])
def test_a_rejected_batch_leaves_the_model_as_it_was(
    make_classifier: MakeClassifier, distance: str, X: Any, y: Any, weight: Any
) -> None:
    model = make_classifier(distance=distance)
    for _ in range(2):
        before = fingerprint(model)
        with pytest.raises((ValueError, TypeError)):
            model.learn(X, y, weight)
        assert fingerprint(model) == before
        model.fit_batch(*dense_stream(0, 30))


@pytest.mark.parametrize("wrong", ["too large", "too wide"])
def test_a_euclidean_batch_that_the_lift_rejects_leaves_the_model_as_it_was(
    make_classifier: MakeClassifier, wrong: str
) -> None:
    model = make_classifier(distance="euclidean")
    X, y = dense_stream(0, 30)
    bad: Any = X.copy()
    bad[3, 3] = 1e200
    if wrong == "too wide":
        bad = sp.csr_matrix(X, shape=X.shape)
        bad.resize(30, 5000)
        model.fit_batch(X, y)
    for _ in range(2):
        before = fingerprint(model)
        with pytest.raises(ValueError, match="X"):
            model.fit_batch(bad, y + 100)
        assert fingerprint(model) == before
        model.fit_batch(X, y)


# --- containers ---


def _variants(X: sp.csr_matrix) -> dict[str, Any]:
    """The same rows in other containers."""
    random = np.random.default_rng(0)
    csr, coo = X.copy(), X.tocoo()
    order = random.permutation(coo.nnz)
    shuffled = coo.row[order], coo.col[order]
    split = np.append(coo.data[order] * 0.25, coo.data[order] * 0.75)  # each entry in two parts, exact in binary
    dense = X.toarray()
    zeros = sp.csr_matrix((np.ones(dense.size), np.indices(dense.shape).reshape(2, -1)), shape=dense.shape)
    zeros.data = dense.ravel().copy()  # every zero stored
    backwards = csr.copy()
    for row in range(X.shape[0]):
        inside = slice(csr.indptr[row], csr.indptr[row + 1])
        backwards.indices[inside], backwards.data[inside] = csr.indices[inside][::-1], csr.data[inside][::-1]
    backwards.has_sorted_indices = False
    backwards.has_canonical_format = False
    tensor = torch.tensor(dense)
    return {
        "NumPy": dense,
        "NumPy, Fortran order": np.asfortranarray(dense),
        "lists": dense.tolist(),
        "object array": dense.astype(object),
        "CSR array": sp.csr_array(X),
        "CSC": X.tocsc(),
        "COO": coo,
        "COO, unsorted": sp.coo_matrix((coo.data[order], shuffled), X.shape),
        "COO, duplicates": sp.coo_matrix((split, tuple(np.tile(s, 2) for s in shuffled)), X.shape),
        "LIL": X.tolil(),
        "explicit zeros": zeros,
        "unsorted columns": backwards,
        "unsorted columns, array": sp.csr_array(backwards),
        "64-bit indices": sp.csr_matrix((X.data, X.indices.astype(np.int64), X.indptr.astype(np.int64)), X.shape),
        "torch": tensor,
        "torch with gradient": tensor.clone().requires_grad_(),
        "torch COO": tensor.to_sparse_coo(),
        "torch CSR": tensor.to_sparse_csr(),
        "torch CSC": tensor.to_sparse_csc(),
    }


CONTAINERS = list(_variants(sp.csr_matrix(np.eye(2))))


@DISTANCES
@pytest.mark.parametrize("container", CONTAINERS)
def test_every_container_gives_the_same_bytes_and_stays_as_it_was(
    make_classifier: MakeClassifier, container: str, distance: str
) -> None:
    X, y = text_stream(11, 60, features=12)
    X.data = np.round(X.data * 64) / 64  # so that halves and quarters add up exactly
    expected, model = make_classifier(distance=distance), make_classifier(distance=distance)
    given, untouched = _variants(X)[container], _variants(X)[container]
    assert model.learn(given, y).labels == expected.learn(X, y).labels
    assert fingerprint(model) == fingerprint(expected)
    model.fit(given, y)
    model.predict_proba(given)
    assert type(given) is type(untouched)
    for name in ("data", "indices", "indptr", "row", "col"):
        if isinstance(getattr(untouched, name, None), np.ndarray):
            np.testing.assert_array_equal(getattr(given, name), getattr(untouched, name))
    if not sp.issparse(given):
        values = given.detach().to_dense().numpy() if isinstance(given, torch.Tensor) else np.asarray(given, float)
        np.testing.assert_array_equal(values, X.toarray())


@pytest.mark.parametrize(
    "dtype", ["bool", "int8", "uint8", "int32", "int64", "uint64", "float16", "float32", "longdouble"]
)
def test_every_number_type_gives_the_same_bytes(make_classifier: MakeClassifier, dtype: str) -> None:
    X, y = text_stream(12, 60)
    X = np.ceil(X.toarray()) if dtype != "bool" else (X.toarray() > 0).astype(float)
    expected, model = make_classifier(), make_classifier()
    expected.fit_batch(X, y)
    model.fit_batch(X.astype(dtype), y)
    assert fingerprint(model) == fingerprint(expected)
    if dtype not in ("float16",):  # SciPy knows no such matrix
        sparse = make_classifier()
        sparse.fit_batch(sp.csr_matrix(X.astype(dtype)), y)
        assert fingerprint(sparse) == fingerprint(expected)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.int64, torch.bool])
def test_every_tensor_type_is_taken(make_classifier: MakeClassifier, dtype: torch.dtype) -> None:
    X, y = text_stream(12, 60)
    tensor = torch.tensor(np.ceil(X.toarray())).to(dtype)
    expected, model = make_classifier(), make_classifier()
    expected.fit_batch(tensor.to(torch.float64).numpy(), y)
    model.fit_batch(tensor, torch.tensor(y))
    assert fingerprint(model) == fingerprint(expected)


def test_labels_and_weights_stay_as_they_were(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(12, 60)
    weight, labels = np.linspace(0, 2, 60), y.astype(object)
    before = labels.copy(), weight.copy()
    make_classifier().fit(X, labels, weight)
    make_classifier().learn(X, labels, weight)
    np.testing.assert_array_equal(labels, before[0])
    np.testing.assert_array_equal(weight, before[1])

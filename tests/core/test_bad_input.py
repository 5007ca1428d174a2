"""What the classifier refuses: the message says what is wrong and what is allowed; the model stays bit-identical."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

import prototide.core.rows
from tests.core.conftest import MakeClassifier
from tests.core.inspecting import fingerprint
from tests.core.streams import dense_stream

ROWS, LABELS = dense_stream(0, 30)
METHODS = ["learn", "fit_batch", "partial_fit", "fit"]


def broken(change: Callable[[Any], None], make: Callable[[Any], Any] = sp.csr_matrix) -> Any:
    """A matrix of the rows' shape, spoiled after SciPy has checked it."""
    matrix = make(ROWS.copy())
    change(matrix)
    return matrix


def column_minus_one(matrix: Any) -> None:
    (matrix.indices if matrix.format == "csr" else matrix.coords[1])[5] = -1


def column_too_large(matrix: Any) -> None:
    (matrix.indices if matrix.format == "csr" else matrix.coords[1])[5] = 4


def row_minus_one(matrix: Any) -> None:
    (matrix.indices if matrix.format == "csc" else matrix.coords[0])[5] = -1


def descending(matrix: Any) -> None:
    matrix.indptr[3] = matrix.indptr[5]


def block_minus_one(matrix: Any) -> None:
    matrix.indices[3] = -1


def listed_minus_one(matrix: Any) -> None:
    matrix.rows[1][2] = -1


def with_value(value: float) -> Any:
    X = ROWS.copy()
    X[4, 2] = value
    return X


WRONG_ROWS = {
    "NaN": (with_value(np.nan), "X contains NaN in row 4, column 2; only finite numbers are allowed"),
    "infinity": (with_value(-np.inf), "X contains infinity in row 4, column 2"),
    "sparse NaN": (sp.csr_matrix(with_value(np.nan)), "X contains NaN in row 4, column 2"),
    "CSR, negative column": (broken(column_minus_one), "X has the column id -1; allowed are 0 to 3"),
    "CSR, column too large": (broken(column_too_large), "X has the column id 4; allowed are 0 to 3"),
    "COO, negative column": (broken(column_minus_one, sp.coo_matrix), "X has the column id -1; allowed are 0 to 3"),
    "COO, column too large": (broken(column_too_large, sp.coo_matrix), "X has the column id 4; allowed are 0 to 3"),
    "COO, negative row": (broken(row_minus_one, sp.coo_matrix), "X has the row id -1; allowed are 0 to 29"),
    "CSC, negative row": (broken(row_minus_one, sp.csc_matrix), "X has the row id -1; allowed are 0 to 29"),
    "BSR, negative column": (
        broken(block_minus_one, lambda rows: sp.bsr_matrix(rows, blocksize=(2, 2))),
        "X has the column id -",
    ),
    "LIL, negative column": (broken(listed_minus_one, sp.lil_matrix), "-1"),
    "CSR, rows that end before they begin": (broken(descending), "indptr must ascend"),
    "beyond float64": (np.where(ROWS[4, 2] == ROWS, 10**400, ROWS.astype(object)), "X must hold real numbers"),
    "long numbers beyond float64": (
        np.where(ROWS[4, 2] == ROWS, np.longdouble("1e400"), ROWS),
        "X contains infinity in row 4, column 2",
    ),
    "text": (ROWS.astype(str).astype(object) + "x", "X must hold real numbers"),
    "complex": (ROWS + 1j, "Complex data not supported"),
    "masked": (np.ma.masked_equal(ROWS, ROWS[4, 2]), "X is a masked array with masked entries"),
    "dates": (ROWS.astype("datetime64[s]"), "X must hold real numbers, got dtype datetime64"),
    "one dimension": (ROWS[0], "Reshape your data"),
}
WRONG_LABELS = {
    "one-hot": (np.eye(3)[LABELS], "y must have one label per row, got an array of shape .* pass y.argmax"),
    "probabilities": (np.full((30, 3), 1 / 3), "y must have one label per row"),
    "a column of probabilities": (np.linspace(0, 1, 30), "Unknown label type: y contains the float 0.03"),
    "NaN": (np.where(LABELS == 0, np.nan, 1.0), "y contains the float nan"),
    "NaN among strings": (["a"] * 29 + [float("nan")], "y contains nan of type float"),
    "booleans": (LABELS == 0, "y contains booleans; labels are ints or strings: use y.astype"),
    "a boolean among ints": ([1] * 29 + [True], "y contains True of type bool"),
    "dates": (LABELS.astype("datetime64[ns]"), "y contains dates or durations, dtype datetime64"),
    "durations": (LABELS.astype("timedelta64[ns]"), "y contains dates or durations, dtype timedelta64"),
    "bytes": ([b"a"] * 30, "y contains b'a' of type bytes"),
    "masked": (np.ma.masked_equal(LABELS, 0), "y is a masked array with masked labels"),
    "a lone surrogate": (["a"] * 29 + ["b\ud800"], "y contains 'b.ud800'; string labels must be valid Unicode"),
    "too few": (LABELS[:-1], "X has 30 rows, y has 29 labels"),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("X", "message"), WRONG_ROWS.values(), ids=WRONG_ROWS)
def test_wrong_rows_are_named_and_leave_no_trace(
    make_classifier: MakeClassifier, method: str, X: Any, message: str
) -> None:
    model = make_classifier(novelty="auto")
    model.fit_batch(ROWS, LABELS)
    before = fingerprint(model)
    with pytest.raises((ValueError, TypeError), match=message):
        getattr(model, method)(X, LABELS)
    assert fingerprint(model) == before


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("y", "message"), WRONG_LABELS.values(), ids=WRONG_LABELS)
def test_wrong_labels_are_named_and_leave_no_trace(
    make_classifier: MakeClassifier, method: str, y: Any, message: str
) -> None:
    model = make_classifier(novelty="auto")
    model.fit_batch(ROWS, LABELS)
    before = fingerprint(model)
    with pytest.raises(ValueError, match=message):
        getattr(model, method)(ROWS, y)
    assert fingerprint(model) == before


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_column_names_of_several_types_are_refused_before_anything_is_learned(
    make_classifier: MakeClassifier, method: str
) -> None:
    table = pd.DataFrame(np.eye(3), columns=["a", 1, "b"])
    new = make_classifier()
    with pytest.raises(TypeError, match="feature names"):
        getattr(new, method)(table, [1, 2, 3])
    assert not hasattr(new, "classes_")
    known = make_classifier().fit(np.eye(3), [7, 8, 9])
    before = fingerprint(known)
    with pytest.raises(TypeError, match="feature names"):
        getattr(known, method)(table, [1, 2, 3])
    assert fingerprint(known) == before


def test_a_ranking_that_no_memory_holds_is_refused_before_anything_is_learned(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    model.fit_batch(ROWS, LABELS)
    before = fingerprint(model)
    with pytest.raises(MemoryError, match="the model is unchanged"):
        model.learn(ROWS, LABELS + 100, top_k=10**12)
    assert fingerprint(model) == before


def test_more_non_zeros_than_can_be_counted_are_refused(
    make_classifier: MakeClassifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert prototide.core.rows.MOST_NONZEROS == 2**31 - 1
    monkeypatch.setattr(prototide.core.rows, "MOST_NONZEROS", 7)
    make_classifier().fit_batch(sp.csr_matrix(np.eye(7)), range(7))
    with pytest.raises(ValueError, match="X has 8 non-zeros; at most 7 are possible: pass fewer rows at a time"):
        make_classifier().fit_batch(sp.csr_matrix(np.eye(8)), range(8))


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((0, 4)), [], r"fit needs at least one labelled row, got X of shape \(0, 4\)"),
        (np.zeros((3, 0)), [1, 2, 3], r"0 feature\(s\) \(shape=\(3, 0\)\) while a minimum of 1 is required"),
        (np.zeros((3, 4)), [1, 2, 3], "at least one labelled row with a non-zero feature and a weight above 0"),
        (np.eye(4), [None] * 4, "at least one labelled row"),
        (np.eye(4), None, "requires y to be passed"),
    ],
)
def test_fit_needs_rows_that_teach(make_classifier: MakeClassifier, X: Any, y: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_classifier().fit(X, y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"k_list": {"a": 0}}, r"k_list=\{'a': 0\} is not allowed: it must be None, a dict label -> int >= 1"),
        ({"k_list": [3, 0]}, r"k_list=\[3, 0\] is not allowed: it must be .* or a list of ints >= 1"),
        ({"k_list": [2.5]}, r"k_list=\[2.5\] is not allowed"),
        ({"lambda_penalty": 1e30}, r"lambda_penalty=1e\+30 is not allowed: it must be a number from 0 to 1000"),
        ({"novelty": 1e-12}, r"novelty=1e-12 is not allowed: it must be None, 'auto' or a number from 1e-6 to 0.5"),
        ({"merge_threshold": -0.1}, "merge_threshold=-0.1 is not allowed: it must be None or a number >= 0"),
        ({"novelty": np.array([0.1, 0.2])}, "novelty=.* is not allowed: it must be None, 'auto' or a number"),
        ({"update_rows": np.array([1, 2])}, "update_rows=.* is not allowed: it must be 'auto' or an int >= 1"),
        ({"n_threads": np.array([1, 2])}, "n_threads=.* is not allowed: it must be -1"),
        ({"random_state": "x"}, r"random_state='x' is not allowed: it must be None, an int from 0 to 4294967295, or"),
        ({"random_state": -1}, "random_state=-1 is not allowed"),
        ({"random_state": np.random.default_rng(0)}, "random_state=Generator.* is not allowed"),
        ({"forget_classes": "yes"}, "forget_classes='yes' is not allowed: it must be True or False"),
    ],
)
def test_wrong_parameters_are_named_and_leave_no_trace(
    make_classifier: MakeClassifier, parameters: dict[str, Any], message: str
) -> None:
    model = make_classifier()
    model.fit_batch(ROWS, LABELS)
    before = fingerprint(model)
    model.set_params(**parameters)
    for method in METHODS:
        with pytest.raises(ValueError, match=message):
            getattr(model, method)(ROWS, LABELS)
    model.set_params(**{name: make_classifier().get_params()[name] for name in parameters})
    assert fingerprint(model) == before


def test_announced_classes_must_be_several(make_classifier: MakeClassifier) -> None:
    with pytest.raises(ValueError, match="y must be a list or array of labels, got 5"):
        make_classifier().partial_fit(ROWS, LABELS, classes=5)


def test_a_state_with_parts_missing_is_refused(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    model.fit_batch(ROWS, LABELS)
    arrays, metadata = model.state()
    del metadata["labels"]
    with pytest.raises(ValueError, match="the state's metadata lacks labels: pass what `state` returned"):
        type(model).from_state(arrays, metadata)
    with pytest.raises(ValueError, match=r"the state lacks .*: pass what `state` returned"):
        type(model).from_state({}, model.state()[1])

"""A frozen model answers as it did, in less memory, and learns no more."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import scipy.sparse as sp

from prototide.core.engines.frozen import BFLOAT16, FLOAT16, _stored, _values
from prototide.core.engines.scoring import rounded
from tests.core.conftest import DISTANCES, MakeClassifier
from tests.core.inspecting import fingerprint
from tests.core.streams import dense_stream, text_stream

DTYPES = ["float32", "float16", "bfloat16", "float64"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_answers_stay(make_classifier: MakeClassifier, dtype: str) -> None:
    X, y = text_stream(1, 900, features=80, classes=8)
    model = make_classifier(dtype=dtype, novelty="auto", half_life=400.0)
    model.fit_batch(X[:700], y[:700])
    wider = sp.csr_matrix((X.data, X.indices, X.indptr), (X.shape[0], 100)).tolil()
    wider[:, 95] = 1.0
    wider[5, :] = 0
    rows = wider.tocsr()
    before, decision = model.learn(rows, None, top_k=3), model.decision_function(X)
    predicted, strange = model.predict(X), model.novelty_scores(X)
    assert model.freeze() is model
    after = model.learn(rows, None, top_k=3)
    assert after.labels == before.labels
    assert after.top_labels == before.top_labels
    assert after.prototypes.tolist() == before.prototypes.tolist()
    np.testing.assert_allclose(after.scores, before.scores, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.decision_function(X), decision, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.novelty_scores(X), strange, rtol=1e-4, atol=1e-5)
    assert model.predict(X).tolist() == predicted.tolist()
    assert model.predict_proba(X).argmax(axis=1).tolist() == predicted.tolist()


@DISTANCES
def test_learning_is_refused_and_leaves_no_trace(make_classifier: MakeClassifier, distance: str) -> None:
    X, y = dense_stream(0, 100)
    model = make_classifier(distance=distance)
    model.fit_batch(X, y)
    predicted = model.predict(X).tolist()
    model.freeze()
    before = fingerprint(model)
    for learn in (model.learn, model.fit_batch, model.partial_fit):
        with pytest.raises(ValueError, match="a frozen model learns no more"):
            learn(X, y + 50)
    assert model.learn(X, [None] * 100).labels == predicted
    assert fingerprint(model.freeze()) == before
    assert model.fit(X, y + 50).classes_.tolist() == [50, 51, 52]  # fit begins anew
    model.fit_batch(X, y)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_frozen_model_survives_state_and_pickle(make_classifier: MakeClassifier, dtype: str) -> None:
    X, y = text_stream(2, 300)
    model = make_classifier(dtype=dtype, novelty=0.1)
    model.fit_batch(X, y)
    model.freeze()
    for copy in (type(model).from_state(*model.state()), pickle.loads(pickle.dumps(model))):
        assert fingerprint(copy) == fingerprint(model)
        assert copy.decision_function(X).tolist() == model.decision_function(X).tolist()
        with pytest.raises(ValueError, match="frozen"):
            copy.fit_batch(X, y)


def test_half_precision_halves_the_memory(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(3, 3000, features=400, classes=60)
    learning, held = {}, {}
    for dtype in DTYPES:
        model = make_classifier(dtype=dtype)
        model.fit_batch(X, y)
        learning[dtype] = model.nbytes
        held[dtype] = model.freeze().nbytes
        vectors = model.state()[0]["engine.frozen.vector"]
        assert vectors.itemsize == {"float64": 8, "float32": 4}.get(dtype, 2)
    for half in ("float16", "bfloat16"):
        assert held[half] < 0.5 * learning[half]
        assert held[half] < 0.75 * held["float32"]


def test_explains_with_one_part_instead_of_two(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(4, 400)
    model = make_classifier(dtype="float64")
    model.fit_batch(X, y)
    before, view = model.explain(X[:20]), list(model.prototypes_)
    model.freeze()
    for old, new in zip(before, model.explain(X[:20]), strict=True):
        assert (new.label, new.runner_up, new.without, new.adding) == (
            old.label,
            old.runner_up,
            old.without,
            old.adding,
        )
        assert new.similarity is None
        assert [part.feature for part in new.contributions] == [part.feature for part in old.contributions]
        assert [part.centre for part in new.contributions] == pytest.approx(
            [part.centre + part.correction for part in old.contributions]
        )
    assert [(p.id, p.label, p.mass, p.norm) for p in model.prototypes_] == [
        (p.id, p.label, p.mass, p.norm) for p in view
    ]
    with pytest.raises(ValueError, match="keeps no centres"):
        model.similar_classes()


def test_every_16_bit_pattern_is_read_as_what_was_stored() -> None:
    for values, bits in ((FLOAT16, 10), (BFLOAT16, 7)):
        finite = values[np.isfinite(values)].astype(np.float64)
        assert _values(_stored(finite.copy(), bits)).tolist() == finite.tolist()
        between = np.random.default_rng(0).standard_normal(1000)
        assert _values(_stored(between.copy(), bits)).tolist() == [rounded(value, bits) for value in between]


def test_the_view_of_a_frozen_model_shows_masses_and_norms_as_they_were(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(2, 600)
    model = make_classifier(half_life=50.0)
    model.fit_batch(X, y)
    before = [(p.id, p.mass, p.norm) for p in model.prototypes_]
    model.freeze()
    after = [(p.id, p.mass, p.norm) for p in model.prototypes_]
    np.testing.assert_allclose(after, before, rtol=1e-9)

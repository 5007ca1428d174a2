"""Explanations add up to the scores they explain, their changes do what they say; the view and the pairs are true."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

from prototide.core import FastKMeansClassifier
from prototide.core.parameters import rule_of
from tests.core.conftest import MakeClassifier
from tests.core.inspecting import fingerprint, prototypes, shared
from tests.core.streams import dense_stream, text_stream, two_faced_class

COLUMNS = 60


@pytest.fixture(name="learned")
def _learned(make_classifier: MakeClassifier) -> tuple[FastKMeansClassifier, sp.csr_matrix]:
    X, y = text_stream(3, 600, features=COLUMNS, classes=6)
    model = make_classifier(dtype="float64", update_rows=1)
    model.fit_batch(X[:500], y[:500])
    return model, sp.csr_matrix(X[500:])


def idf_of(model: FastKMeansClassifier) -> Any:
    common = shared(model)
    return np.log((1 + common.rows) / (1 + common.document_frequency)) + 1


def test_contributions_add_up_to_the_score(learned: tuple[FastKMeansClassifier, sp.csr_matrix]) -> None:
    model, X = learned
    known = {prototype.id: prototype for prototype in prototypes(model)}
    predicted = model.learn(X, None)
    for row, why in enumerate(model.explain(X, n=COLUMNS)):
        assert (why.label, why.prototype) == (predicted.labels[row], predicted.prototypes[row])
        assert why.score == pytest.approx(float(predicted.scores[row]), rel=1e-5)
        assert sum(part.centre + part.correction for part in why.contributions) == pytest.approx(why.score, rel=1e-9)
        x = X[[row]].toarray()[0] * idf_of(model)
        x /= np.linalg.norm(x)
        winner = known[why.prototype]
        assert why.similarity == pytest.approx(x @ winner.centre / np.sqrt(winner.square), rel=1e-9)
        assert {part.feature: part.value for part in why.contributions} == pytest.approx(
            {int(j): x[j] for j in np.flatnonzero(x)}, rel=1e-9
        )
        assert {part.feature: part.correction for part in why.contributions} == pytest.approx(
            {int(j): x[j] * winner.correction[j] for j in np.flatnonzero(x)}, rel=1e-9, abs=1e-12
        )


def test_the_n_largest_contributions_are_told_largest_first(
    learned: tuple[FastKMeansClassifier, sp.csr_matrix],
) -> None:
    model, X = learned
    for all_of_them, some in zip(model.explain(X, n=COLUMNS), model.explain(X, n=3), strict=True):
        assert some.contributions == all_of_them.contributions[:3]
        sizes = [abs(part.centre + part.correction) for part in all_of_them.contributions]
        assert sizes == sorted(sizes, reverse=True)


def test_the_margin_is_the_lead_over_the_next_class(learned: tuple[FastKMeansClassifier, sp.csr_matrix]) -> None:
    model, X = learned
    decision = model.decision_function(X)
    order = np.argsort(-decision, axis=1)
    for row, why in enumerate(model.explain(X)):
        assert why.runner_up == model.classes_[order[row, 1]]
        assert why.margin == pytest.approx(decision[row, order[row, 0]] - decision[row, order[row, 1]], rel=1e-9)


def test_taking_the_named_features_away_gives_the_row_to_the_runner_up_and_fewer_do_not(
    learned: tuple[FastKMeansClassifier, sp.csr_matrix],
) -> None:
    model, X = learned

    def lead(row: int, without: list[int], why: Any) -> float:
        changed = X[[row]].toarray()
        changed[0, without] = 0
        scores = class_prototype_scores(model, changed[0], why)
        return scores[0] - scores[1]

    for row, why in enumerate(model.explain(X)):
        assert why.without
        assert set(why.without) <= set(X[[row]].indices.tolist())
        assert lead(row, why.without, why) <= 1e-9
        assert lead(row, why.without[:-1], why) > 0


def class_prototype_scores(model: FastKMeansClassifier, values: Any, why: Any, idf: Any = None) -> list[float]:
    """Of the winner and of the runner-up's prototype, by the formula."""
    known = {prototype.id: prototype for prototype in prototypes(model)}
    x = values * (idf_of(model) if idf is None else idf)
    x = x / (np.linalg.norm(x) or 1.0)  # of a row without features, which nobody wins
    chosen = [known[why.prototype], known[why.runner_up_prototype]]
    tau = rule_of(model.get_params()).tau
    return [tau * float(x @ p.centre) / np.sqrt(p.square) + float(x @ p.correction) for p in chosen]


def test_adding_the_named_features_at_the_rows_mean_weight_gives_it_to_the_runner_up(
    learned: tuple[FastKMeansClassifier, sp.csr_matrix],
) -> None:
    model, X = learned
    changed_hands = 0
    for row, why in enumerate(model.explain(X)):
        weighted = X[[row]].toarray()[0] * idf_of(model)
        assert not weighted[why.adding].any()
        weighted[why.adding] = np.abs(weighted[X[[row]].indices]).mean()
        winner, other = class_prototype_scores(model, weighted, why, idf=1.0)
        assert not why.adding or winner - other <= 1e-9
        changed_hands += bool(why.adding)
    assert changed_hands > 50


def test_what_cannot_be_explained_is_empty(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    model.fit_batch(np.eye(2), ["a", "a"])
    alone, nothing = model.explain(np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert (alone.label, alone.runner_up, alone.margin, alone.without, alone.adding) == ("a", None, None, [], [])
    assert (nothing.label, nothing.prototype, nothing.contributions, nothing.similarity) == (None, -1, [], None)
    assert model.explain(sp.csr_matrix((0, 2))) == []
    unseen = model.explain(sp.csr_matrix(([1.0], [7], [0, 1]), (1, 9)))[0]
    assert (unseen.label, unseen.score) == ("a", 0.0)


def test_a_euclidean_row_is_explained_in_lifted_coordinates(make_classifier: MakeClassifier) -> None:
    X, y = dense_stream(1, 200)
    model = make_classifier(distance="euclidean")
    model.fit_batch(X, y)
    for row, why in enumerate(model.explain(X[:20])):
        assert {part.feature for part in why.contributions} <= {-2, -1, 0, 1, 2, 3}
        assert sum(part.centre + part.correction for part in why.contributions) == pytest.approx(why.score, rel=1e-5)
        assert why.label == model.predict(X[[row]])[0]
        assert (why.without, why.adding) == ([], [])


def test_explaining_changes_nothing(learned: tuple[FastKMeansClassifier, sp.csr_matrix]) -> None:
    model, X = learned
    before = fingerprint(model)
    model.explain(X)
    list(model.prototypes_)
    model.similar_classes()
    assert fingerprint(model) == before


def test_the_view_shows_every_active_prototype_as_it_is(make_classifier: MakeClassifier) -> None:
    X, y = two_faced_class(0, 800)
    model = make_classifier(half_life=500.0, dtype="float64")
    model.fit_batch(X[:400], y[:400])
    model.fit_batch(X[400:], y[400:])
    view, expected = model.prototypes_, prototypes(model)
    assert len(view) == len(expected) > 2
    for shown, true in zip(view, expected, strict=True):
        assert (shown.id, shown.label) == (true.id, true.label)
        assert shown.mass == pytest.approx(true.mass)
        assert shown.norm == pytest.approx(np.sqrt(true.square))
        assert shown.birth_step in (1, 2)
        vector = rule_of(model.get_params()).tau * true.centre / np.sqrt(true.square) + true.correction
        heaviest = np.argsort(-np.abs(vector))[: len(shown.top_features)]
        assert dict(shown.top_features) == pytest.approx({int(j): vector[j] for j in heaviest})
    assert view[-1].id == expected[-1].id
    assert [prototype.id for prototype in view[1:]] == [prototype.id for prototype in expected[1:]]
    with pytest.raises(IndexError):
        view[len(view)]


def test_a_prototype_that_is_no_more_says_so(make_classifier: MakeClassifier) -> None:
    model = make_classifier(half_life=50.0, forget_classes=True)
    model.fit_batch(np.eye(3), ["old", "new", "new"])
    view = model.prototypes_
    assert view[0].label == "old"
    model.fit_batch(np.tile(np.eye(3)[1:], (700, 1)), ["new"] * 1400)
    with pytest.raises(LookupError, match="prototype 0 is no more"):
        view[0]


def test_similar_classes_are_those_with_the_nearest_centres(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(8, 900, features=50, classes=9)
    model = make_classifier(dtype="float64")
    model.fit_batch(X, y)
    best: dict[tuple[int, int], float] = {}
    for a in prototypes(model):
        for b in prototypes(model):
            if a.label < b.label:
                cosine = float(a.centre @ b.centre) / np.sqrt(a.square * b.square)
                best[a.label, b.label] = max(cosine, best.get((a.label, b.label), -1.0))
    expected = sorted(best.items(), key=lambda pair: -pair[1])[:5]
    found = model.similar_classes(5)
    assert [tuple(sorted((a, b))) for a, b, _ in found] == [pair for pair, _ in expected]
    assert [cosine for *_, cosine in found] == pytest.approx([cosine for _, cosine in expected])
    assert len(model.similar_classes(100)) <= 36


def test_a_single_class_is_like_no_other(make_classifier: MakeClassifier) -> None:
    model = make_classifier()
    model.fit_batch(np.eye(2), ["a", "a"])
    assert model.similar_classes() == []


@pytest.mark.parametrize("n", [0, -1, 1.5, True, None])
def test_counts_that_make_no_sense_are_named(make_classifier: MakeClassifier, n: Any) -> None:
    model = make_classifier()
    model.fit_batch(np.eye(2), ["a", "b"])
    for ask in (lambda: model.explain(np.eye(2), n=n), lambda: model.similar_classes(n)):
        with pytest.raises(ValueError, match=f"n={n!r} is not allowed: it must be an int >= 1"):
            ask()

"""Results do not depend on threads, and readers never see half a step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import pytest

from prototide.core.model import Model
from tests.core.conftest import MakeClassifier
from tests.core.inspecting import fingerprint, prototypes
from tests.core.streams import text_stream

LEAST_SECONDS = 1.0


@pytest.mark.skipif(numba.config.NUMBA_NUM_THREADS < 2, reason="ONE CORE: NOTHING TO COMPARE")
@pytest.mark.parametrize(
    "parameters", [{}, {"distance": "euclidean"}, {"dtype": "float16"}, {"half_life": 90.0}], ids=str
)
def test_the_number_of_threads_changes_no_bit(make_classifier: MakeClassifier, parameters: dict[str, Any]) -> None:
    X, y = text_stream(0, 700, features=80, classes=40)
    states, answers = [], []
    for n_threads in (1, 2):
        model = make_classifier(**parameters | {"n_threads": n_threads})
        answers.append(
            [model.learn(X[first : first + 350], y[first : first + 350]).labels for first in range(0, 700, 350)]
        )
        answers[-1].append(model.predict_proba(X).tobytes())
        states.append(fingerprint(model, parameters=False))
    assert states[0] == states[1]
    assert answers[0] == answers[1]


def test_the_callers_own_number_of_threads_comes_back(make_classifier: MakeClassifier) -> None:
    before = numba.get_num_threads()
    model = make_classifier(n_threads=1)
    model.fit(*text_stream(0, 50))
    with pytest.raises(ValueError, match="NaN"):
        model.fit_batch([[np.nan]], [1])
    assert numba.get_num_threads() == before


def _together(*jobs: Callable[[], None]) -> None:
    """Runs the jobs again and again at the same time; the first error of any is raised here."""
    errors: list[BaseException] = []
    until = time.monotonic() + LEAST_SECONDS

    def repeat(job: Callable[[], None]) -> None:
        try:
            while time.monotonic() < until and not errors:
                job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=repeat, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def test_readers_and_a_writer_at_once(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(1, 400)
    model = make_classifier(n_threads=-1)
    model.fit_batch(X, y)
    steps = iter(range(10**9))

    def write() -> None:
        step = next(steps)
        model.fit_batch(X[:40], y[:40] + step % 200)  # new classes all the time

    def read() -> None:
        assert len(model.predict(X[:20])) == 20
        top, probs = model.predict_top(X[:20], 3)
        assert len(top) == len(probs) == 20
        assert model.moved_classes(3) is not None
        assert model.nbytes > 0

    def read_all() -> None:
        p = model.predict_proba(X[:20])
        np.testing.assert_allclose(p.sum(axis=1), 1)

    def checkpoint() -> None:
        restored = type(model).from_state(*model.state())
        assert fingerprint(restored)["metadata"]
        assert len(prototypes(restored)) >= len(restored.classes_)

    _together(write, read, read_all, checkpoint)


def test_two_writers_lose_no_row(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(2, 60)
    model = make_classifier(k_init=1, n_threads=-1)
    learned = [0, 0]

    def writer(number: int) -> Callable[[], None]:
        def write() -> None:
            learned[number] += model.fit_batch(X, y)["rows"]

        return write

    _together(writer(0), writer(1))
    assert min(learned) > 0
    assert sum(p.mass for p in prototypes(model)) == pytest.approx(sum(learned), rel=1e-9)


def test_models_in_several_threads_do_not_disturb_each_other(make_classifier: MakeClassifier) -> None:
    X, y = text_stream(3, 300)
    alone = make_classifier(n_threads=-1)
    alone.fit_batch(X, y)
    expected = fingerprint(alone)

    def job() -> None:
        model = make_classifier(n_threads=-1)
        model.fit_batch(X, y)
        assert fingerprint(model) == expected

    _together(job, job, job)


def test_whoever_comes_first_no_row_is_lost(make_classifier: MakeClassifier, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = text_stream(0, 20)
    begin = Model.__init__

    def slowly(*arguments: Any) -> None:
        time.sleep(0.05)
        begin(*arguments)

    monkeypatch.setattr(Model, "__init__", slowly)
    model = make_classifier()
    threads = [threading.Thread(target=model.learn, args=(X, y)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert model._fitted.engine.rows_learned == 60

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from prototide.core import FastKMeansClassifier
from prototide.core.rows import canonical_rows
from tests.core.engines.gpu.conftest import DEVICE
from tests.core.engines.gpu.problems import Stream, assert_close, assert_same_answers
from tests.core.inspecting import fingerprint
from tests.core.streams import text_stream, two_faced_class

on_cuda = pytest.mark.skipif(DEVICE != "cuda", reason="NO CUDA HERE: NOT TESTED ON A DEVICE")


@pytest.mark.parametrize("seed", range(10))
def test_learns_and_predicts_what_the_plain_engine_does(seed: int) -> None:
    choose = random.Random(seed)
    stream = Stream.of(
        seed, choose.randint(1, 150), 40, choose.randint(1, 9), choose.randint(1, 4), dtype="float64",
        lambda_penalty=choose.choice([0.0, 0.1, 0.5]), half_life=choose.choice([None, 100.0]),
        soft_type=choose.choice(["linear", "softmax"]), soft=choose.random() < 0.7,
        update_rows=choose.choice(["auto", 1, 50]), idf=choose.random() < 0.7,
    )  # fmt: skip
    ours, theirs, batch = stream.torch(), stream.plain(), choose.randint(1, 150)
    assert_same_answers(stream.learn(ours, batch), stream.learn(theirs, batch), 1e-9)
    assert_close(ours, theirs, 1e-8)


@pytest.mark.parametrize(
    ("maintained", "counted"),
    [
        ({"merge_threshold": 0.5}, "merged"),
        ({"merge_threshold": 0.9, "relative_merge": True}, "merged"),
        ({"merge_threshold": 0.9, "percentile_threshold": 0.5}, "merged"),
        ({"truncation_threshold": 0.05}, None),
        ({"half_life": 40.0, "min_weight": 15.0}, "pruned"),
        ({"half_life": 30.0, "min_weight": 2.0, "forget_classes": True}, "pruned"),
    ],
)
@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_maintains_what_the_plain_engine_does(
    maintained: dict[str, float], counted: str | None, penalty: float
) -> None:  # fmt: skip
    stream = Stream.of(5, 2300, 40, 5, 4, update_rows=100, dtype="float64", lambda_penalty=penalty, **maintained)
    stream.classes[1200:][stream.classes[1200:] == 0] = 1  # class 0 stays away
    ours, theirs = stream.torch(), stream.plain()
    stream.learn(ours, 700)
    stream.learn(theirs, 700)
    assert_close(ours, theirs, 1e-7)
    if counted is not None and penalty == 0:
        assert theirs.counts[counted] > 0


def test_a_class_grows_by_several_prototypes_inside_one_group() -> None:
    stream = Stream.of(0, 1200, 12, 2, 12, dtype="float64", lambda_penalty=0.0, update_rows=600)
    X, y = two_faced_class(0, 1200, sides=6)
    stream.rows, stream.classes, stream.weight = canonical_rows(X), y.astype(np.int32), np.ones(1200)
    ours, theirs = stream.torch(), stream.plain()
    assert_same_answers(stream.learn(ours, 600), stream.learn(theirs, 600), 1e-9)
    assert_close(ours, theirs, 1e-8)
    assert theirs.active[0] > 3  # the first group knows no rivals, so all were born in the second


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_scores_in_the_format_asked_for(dtype: str) -> None:
    stream = Stream.of(2, 400, 60, 6, 3, dtype=dtype)
    ours, theirs = stream.torch(), stream.plain()
    stream.learn(theirs, 100)
    ours.restore(theirs.state())
    (ranking, _), (expected, _) = ours.rank(stream.rows, 3), theirs.rank(stream.rows, 3)
    np.testing.assert_allclose(ranking.scores, expected.scores, rtol=1e-5, atol=1e-6)
    assert np.mean(ranking.classes[:, 0] == expected.classes[:, 0]) > 0.99
    np.testing.assert_allclose(ours.class_scores(stream.rows), theirs.class_scores(stream.rows), rtol=1e-5, atol=1e-6)


def test_a_model_moves_between_engines_and_goes_on() -> None:
    stream = Stream.of(7, 900, dtype="float64")
    stayed, moved = stream.plain(), stream.torch()
    stream.learn(stayed, 300)
    moved.restore(stayed.state())
    back = stream.plain()
    assert_same_answers(stream.learn(moved, 300), stream.learn(stayed, 300), 1e-9)
    back.restore(moved.state())
    assert_same_answers(stream.learn(back, 300), stream.learn(stayed, 300), 1e-9)
    assert_close(back, stayed, 1e-8)


def test_a_state_is_restored_to_the_last_bit() -> None:
    stream = Stream.of(8, 500)
    engine, other = stream.device(), stream.device()
    stream.learn(engine, 200)
    other.restore(engine.state())
    for name, array in engine.state().items():
        assert array.tobytes() == other.state()[name].tobytes(), name


def test_the_same_rows_give_the_same_bytes_twice() -> None:
    stream = Stream.of(9, 1500, 60, 8)
    states = []
    for _ in range(2):
        engine = stream.device()
        stream.learn(engine, 400)
        states.append({name: array.tobytes() for name, array in engine.state().items()})
    assert states[0] == states[1]


@on_cuda
@pytest.mark.parametrize("penalty", [0.0, 0.1])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_a_classifier_on_cuda_answers_as_on_the_cpu(dtype: str, penalty: float) -> None:
    X, y = text_stream(3, 6000, 300, 40, 3)
    there, here, again = (FastKMeansClassifier(dtype=dtype, lambda_penalty=penalty) for _ in range(3))
    there.to("cuda")
    again.to("cuda")
    labels = [
        (m.learn(X[f : f + 512], y[f : f + 512]).labels) for f in range(0, 6000, 512) for m in (there, here, again)
    ]
    differ = sum(
        a != b
        for mine, theirs in zip(labels[::3], labels[1::3], strict=True)
        for a, b in zip(mine, theirs, strict=True)
    )
    assert differ <= 0.005 * 6000
    assert labels[::3] == labels[2::3]
    assert fingerprint(there) == fingerprint(again)
    there.to("cpu")
    assert np.mean(there.predict(X) == here.predict(X)) > 0.99


def test_a_device_that_is_not_there_is_told_as_such() -> None:
    model = FastKMeansClassifier()
    assert model.to("cpu") is model
    with pytest.raises(ValueError, match="device='cuda:97' is not there"):
        model.to("cuda:97")
    with pytest.raises(ValueError, match="device='tpu' is not allowed"):
        model.to("tpu")
    assert not torch.backends.mps.is_available() or model.to("mps") is model


def test_a_model_that_a_device_or_a_format_has_no_room_for_stays_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = text_stream(3, 300)
    model = FastKMeansClassifier().fit(X, y)
    before = fingerprint(model)

    def refuse(engine: object, state: object) -> None:
        raise MemoryError("by design")

    monkeypatch.setattr(type(model._fitted.engine), "restore", refuse)
    with pytest.raises(MemoryError, match="by design"):
        model.set_params(dtype="float64").predict(X)
    model.set_params(dtype="float32")
    assert fingerprint(model) == before


def test_a_step_that_fails_in_its_middle_is_not_gone_on_from(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Stream.of(4, 60, 12, 3)
    engine = stream.torch()
    stream.learn(engine, 30)
    state = engine.state()

    def fail(*_: object) -> None:
        raise MemoryError("by design")

    monkeypatch.setattr(engine, "_settle", fail)
    with pytest.raises(MemoryError, match="by design"):
        stream.learn(engine, 30)
    with pytest.raises(RuntimeError, match="half changed"):
        engine.rank(stream.rows, 1)
    restored = stream.torch()
    restored.restore(state)
    assert restored.rank(stream.rows, 1)[0].classes.shape == (60, 1)

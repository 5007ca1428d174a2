from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prototide.core import FastKMeansClassifier
from tests.core.engines.gpu.conftest import DEVICE
from tests.core.engines.gpu.problems import Stream, assert_close, assert_same_answers
from tests.core.inspecting import fingerprint
from tests.core.streams import text_stream

on_cuda = pytest.mark.skipif(DEVICE != "cuda", reason="NO CUDA HERE: NOT TESTED ON A DEVICE")


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 150),
    classes=st.integers(1, 9),
    k=st.integers(1, 4),
    batch=st.integers(1, 300),
    penalty=st.sampled_from([0.0, 0.1, 0.5]),
    half_life=st.sampled_from([None, 100.0]),
    soft_type=st.sampled_from(["linear", "softmax"]),
    soft=st.booleans(),
    update_rows=st.sampled_from(["auto", 1, 50]),
)
def test_learns_and_predicts_what_the_plain_engine_does(
    seed: int, rows: int, classes: int, k: int, batch: int, penalty: float, half_life: float | None, soft_type: str,
    soft: bool, update_rows: str | int,
) -> None:  # fmt: skip
    stream = Stream.of(
        seed, rows, 40, classes, k, dtype="float64", lambda_penalty=penalty, half_life=half_life,
        soft_type=soft_type, soft=soft, update_rows=update_rows,
    )  # fmt: skip
    ours, theirs = stream.torch(), stream.plain()
    assert_same_answers(stream.learn(ours, batch), stream.learn(theirs, batch), 1e-9)
    assert_close(ours, theirs, 1e-8)


@pytest.mark.parametrize(
    "maintained",
    [
        {"merge_threshold": 0.5},
        {"merge_threshold": 0.9, "relative_merge": True},
        {"merge_threshold": 0.9, "percentile_threshold": 0.5},
        {"truncation_threshold": 0.05},
        {"half_life": 40.0, "min_weight": 5.0},
        {"half_life": 30.0, "min_weight": 2.0, "forget_classes": True},
    ],
)
@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_maintains_what_the_plain_engine_does(maintained: dict[str, float], penalty: float) -> None:
    stream = Stream.of(5, 2300, 40, 5, 4, update_rows=100, dtype="float64", lambda_penalty=penalty, **maintained)
    stream.classes[1200:][stream.classes[1200:] == 0] = 1  # class 0 stays away
    ours, theirs = stream.torch(), stream.plain()
    stream.learn(ours, 700)
    stream.learn(theirs, 700)
    assert_close(ours, theirs, 1e-7)
    assert theirs.counts["pruned"] + theirs.counts["merged"] > 0 or "truncation_threshold" in maintained


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

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray
from scipy.special import softmax

from prototide.core.calibration import FORGET, Calibration, probabilities
from tests.core.conftest import MakeClassifier
from tests.core.streams import text_stream

SOFT_TYPES = pytest.mark.parametrize("soft_type", ["linear", "softmax"])
scores = hnp.arrays(np.float64, st.tuples(st.integers(1, 6), st.integers(1, 6)), elements=st.floats(-50, 50))


@SOFT_TYPES
@given(scores=scores, b=st.floats(0.05, 100))
def test_probabilities_sum_to_one_and_follow_the_scores(soft_type: str, scores: NDArray[np.float64], b: float) -> None:
    p = probabilities(scores, b, soft_type)
    np.testing.assert_allclose(p.sum(axis=1), 1)
    order = np.argsort(scores, axis=1)
    assert (np.diff(np.take_along_axis(p, order, axis=1), axis=1) >= 0).all()


def test_probabilities_follow_their_formulae() -> None:
    scores = np.array([[1.0, 0.5, -3.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(probabilities(scores, 4.0, "softmax"), softmax(4.0 * scores, axis=1))
    np.testing.assert_allclose(probabilities(scores, 2.0, "linear"), [[1 / 1.75, 0.75 / 1.75, 0], [1 / 3] * 3])


@SOFT_TYPES
def test_a_class_without_prototypes_has_no_probability_and_a_row_without_classes_none_at_all(soft_type: str) -> None:
    p = probabilities(np.array([[0.0, -np.inf], [-np.inf, -np.inf]]), 1.0, soft_type)
    assert p.tolist() == [[1, 0], [0, 0]]


@SOFT_TYPES
@given(scores=scores, data=st.data())
def test_the_losses_of_a_batch_are_those_of_its_probabilities(
    soft_type: str, scores: NDArray[np.float64], data: st.DataObject
) -> None:
    truth = data.draw(hnp.arrays(np.int32, len(scores), elements=st.integers(0, scores.shape[1] - 1)))
    calibration = Calibration(soft_type)
    expected = FORGET ** len(truth) * calibration.losses
    weight = FORGET ** np.arange(len(truth) - 1, -1, -1.0)
    for k, b in enumerate(calibration.values):
        p = probabilities(scores, b, soft_type)
        own = p[np.arange(len(truth)), truth]
        loss = -np.log(np.maximum(own, 1e-12)) if soft_type == "softmax" else (p * p).sum(axis=1) - 2 * own + 1
        expected[k] += weight @ loss
    calibration.learn(scores, truth)
    np.testing.assert_allclose(calibration.losses, expected, rtol=1e-12)


def test_b_is_found_for_softmax() -> None:
    random, calibration = np.random.default_rng(0), Calibration("softmax")
    for _ in range(60):
        scores = random.standard_normal((50, 4))
        truth = np.array([random.choice(4, p=p) for p in softmax(5.0 * scores, axis=1)], np.int32)
        calibration.learn(scores, truth)
    assert calibration.b == pytest.approx(5.0, rel=0.3)


def test_forgetting_lets_b_follow() -> None:
    random, calibration = np.random.default_rng(1), Calibration("softmax")
    for sharpness in (0.5, 8.0):
        for _ in range(120):
            scores = random.standard_normal((50, 4))
            truth = np.array([random.choice(4, p=p) for p in softmax(sharpness * scores, axis=1)], np.int32)
            calibration.learn(scores, truth)
        assert calibration.b == pytest.approx(sharpness, rel=0.4)


@SOFT_TYPES
def test_rows_of_classes_without_prototypes_teach_nothing(soft_type: str) -> None:
    calibration = Calibration(soft_type)
    before = calibration.state()["losses"]
    calibration.learn(np.array([[-np.inf, 1.0]]), np.array([0], np.int32))
    calibration.learn(np.empty((0, 2)), np.empty(0, np.int32))
    np.testing.assert_array_equal(calibration.state()["losses"], before)


@SOFT_TYPES
def test_the_state_continues(soft_type: str) -> None:
    calibration = Calibration(soft_type)
    calibration.learn(np.array([[0.3, 1.0]]), np.array([0], np.int32))
    other = Calibration.from_state(soft_type, calibration.state())
    np.testing.assert_array_equal(other.losses, calibration.losses)
    assert other.b == calibration.b


@SOFT_TYPES
def test_a_stream_of_overlapping_classes_is_predicted_with_calibrated_probabilities(
    make_classifier: MakeClassifier, soft_type: str
) -> None:
    X, y = text_stream(12, 4000, features=40, classes=8)
    model = make_classifier(soft_type=soft_type)
    confidence: list[float] = []
    right: list[bool] = []
    for first in range(0, 4000, 100):
        learned = model.learn(X[first : first + 100], y[first : first + 100], top_k=1)
        assert learned.top_probs is not None
        confidence += learned.top_probs[:, 0].tolist()
        right += (np.array(learned.labels) == y[first : first + 100]).tolist()
    assert np.mean(right[1000:]) < 0.95
    assert _calibration_error(np.array(confidence[1000:]), np.array(right[1000:])) <= 0.05


def _calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Expected calibration error over ten bins."""
    bins = np.minimum((confidence * 10).astype(int), 9)
    return float(
        sum(abs(confidence[bins == b].mean() - right[bins == b].mean()) * (bins == b).mean() for b in set(bins))
    )

"""What the benchmarks measure with, on inputs small enough to check by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import scipy.sparse as sp

from prototide.core import parameters
from tests.benchmarks.ablation import CONSTANTS, VARIANTS, varied
from tests.benchmarks.calibration import expected_calibration_error
from tests.benchmarks.data import DataSet, load
from tests.benchmarks.drift import recovery, swapped
from tests.benchmarks.novelty import MEAN_PRIOR_ROWS, History
from tests.benchmarks.peers import FAST_PEERS, Ours, RunningCentroids, RunningIdf, make_peer, narrowed
from tests.benchmarks.prequential import correct_rows


def words(rows: int, columns: int, seed: int = 0) -> DataSet:
    """Rows of two or so non-zeros, whose column tells the class; the upper half of the columns stays unused."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 4, rows)
    X = sp.lil_matrix((rows, 2 * columns), dtype=np.float32)
    X[np.arange(rows), y] = 1
    X[np.arange(rows), rng.integers(4, columns, rows)] = 1
    return DataSet("words", sp.csr_matrix(X), np.array([f"class {c}" for c in y]))


class Recorder:
    """Predicts the label learned last."""

    def __init__(self) -> None:
        self.last = ""
        self.calls: list[str] = []

    def predict(self, X: sp.csr_matrix) -> np.ndarray:
        self.calls.append("predict")
        return np.repeat(self.last, X.shape[0])

    def learn(self, X: sp.csr_matrix, y: np.ndarray) -> None:
        self.calls.append("learn")
        self.last = y[-1]


def test_calibration_error_is_the_weighted_gap_of_the_bins() -> None:
    probability = np.array([0.9, 0.9, 0.9, 0.9, 0.3, 0.3])
    right = np.array([True, True, True, False, False, False])
    assert expected_calibration_error(probability, right) == pytest.approx((4 * 0.15 + 2 * 0.3) / 6)
    assert expected_calibration_error(np.ones(3), np.ones(3, bool)) == 0


def test_prequential_rows_are_predicted_before_they_are_learned_and_the_first_batch_does_not_count() -> None:
    y = np.repeat(["a", "b"], [256, 100])
    data = DataSet("two", sp.csr_matrix(np.zeros((356, 1), np.float32)), y)
    recorder = Recorder()
    right = correct_rows(recorder, data, lambda: None)
    assert recorder.calls == ["learn", "predict", "learn"]
    assert right.tolist() == [False] * 100


def test_recovery_counts_rows_until_a_whole_window_after_the_swap_is_good_enough() -> None:
    right = np.concatenate([np.ones(1000, bool), np.zeros(700, bool), np.ones(1000, bool)])
    found = recovery(right, 1000)
    assert found["before"] == 1.0
    assert found["first 500 after"] == 0.0
    assert found["rows to regain"] == 700 + 475  # 475 of the last 500 are right
    assert recovery(right[:1600], 1000)["rows to regain"] is None


def test_swap_permutes_half_of_the_classes_from_the_middle_on() -> None:
    data = words(2048, 16)
    after = swapped(data)
    assert (after.y[:1024] == data.y[:1024]).all()
    pairs = set(zip(data.y[1024:], after.y[1024:], strict=True))
    assert len(pairs) == 4
    assert sum(before != now for before, now in pairs) == 2
    assert {now for _, now in pairs} == set(data.y)


def test_the_part_that_no_parameter_switches_off_is_back_after_its_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    taus = []

    def measured(learner: Ours, data: DataSet, advance: object) -> dict[str, float]:
        rule = parameters.rule_of(learner.model.get_params())
        taus.append((rule.tau, rule.pmi))
        return {}

    monkeypatch.setattr("tests.benchmarks.ablation.measured", measured)
    assert not set(VARIANTS) & set(CONSTANTS)
    for variant in ("default", "no mutual information", "default"):
        varied(variant, words(10, 8), lambda: None)
    assert taus == [(1.1, 0.25), (2.0, 0.0), (1.1, 0.25)]


@pytest.mark.parametrize("name", FAST_PEERS)
def test_leaving_out_unused_columns_changes_no_prediction_of_a_peer(name: str) -> None:
    data = words(1500, 64)
    narrow = narrowed(data)
    assert narrow.X.shape[1] < data.X.shape[1]
    wide_right = correct_rows(make_peer(name, data), data, lambda: None)
    assert correct_rows(make_peer(name, narrow), narrow, lambda: None).tolist() == wide_right.tolist()
    assert wide_right.mean() > 0.8


def test_running_idf_weighs_by_the_rows_learned_before() -> None:
    seen: list[sp.csr_matrix] = []

    class Keeper(Recorder):
        def learn(self, X: sp.csr_matrix, y: np.ndarray) -> None:
            seen.append(X)

    X = sp.csr_matrix(np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [1.0, 0.0, 0.0]]))
    weighted = RunningIdf(Keeper(), 3)
    weighted.learn(X, np.array(["a", "b", "a"]))
    weighted.learn(X, np.array(["a", "b", "a"]))
    common, rare = np.log(4 / 4) + 1, np.log(4 / 2) + 1
    assert seen[0].toarray()[0] == pytest.approx([2**-0.5, 2**-0.5, 0])
    assert seen[1].toarray()[0] == pytest.approx(np.array([common, rare, 0]) / np.hypot(common, rare))


def test_running_centroids_are_the_means_of_all_rows() -> None:
    centroids = RunningCentroids(np.array(["a", "b", "never"]), 2, euclidean=True)
    centroids.learn(sp.csr_matrix([[0.0, 1.0], [4.0, 0.0]]), np.array(["a", "b"]))
    centroids.learn(sp.csr_matrix([[0.0, 3.0]]), np.array(["a"]))
    assert centroids.predict(sp.csr_matrix([[0.0, 9.0], [3.5, 0.5]])).tolist() == ["a", "b"]
    assert centroids.sums[0].tolist() == [0.0, 4.0]


def test_prototype_means_of_rarely_won_prototypes_are_drawn_to_the_mean_of_all() -> None:
    history = History(np.array([1.0, 1.0, 2.0, 2.0]), np.array([7, 7, 8, 8]))
    expected = (MEAN_PRIOR_ROWS * 1.5 + 2) / (MEAN_PRIOR_ROWS + 2)
    assert history.prototype_means(np.array([7, 9])) == pytest.approx([expected, 1.5])


def test_a_missing_set_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"trec6.*is missing.*--data"):
        load("trec6", tmp_path)

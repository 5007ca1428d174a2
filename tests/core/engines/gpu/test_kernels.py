"""The kernels against their torch references: compiled on CUDA, by Triton's interpreter elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch

from prototide.core.engines.gpu import entries, fast_learning, fast_scoring, rank_rows
from prototide.core.engines.gpu.rows import upload
from prototide.core.engines.gpu.scoring import best_slots, rank_classes, slot_scores, unit_rows
from prototide.core.engines.gpu.vectors import dense_of, hot_features, packed, vectors_of
from prototide.core.rows import CsrRows, canonical_rows
from tests.core.engines.gpu.conftest import DEVICE
from tests.core.engines.gpu.problems import Stream, assert_close, assert_same_answers
from tests.core.streams import two_faced_class

TOLERANCE = {"float32": 1e-5, "bfloat16": 1e-3, "float16": 1e-4}
# Triton's interpreter cuts bfloat16 off instead of rounding.
scored = pytest.mark.parametrize("dtype", TOLERANCE if DEVICE == "cuda" else ["float32", "float16"])
COPIES = {"float32": 3, "bfloat16": 1, "float16": 2}


def learned(stream: Stream):  # type: ignore[no-untyped-def]
    """An engine for devices that knows what the plain engine learned of the stream, and its rows."""
    plain, engine = stream.plain(), stream.triton()
    stream.learn(plain, 100)
    engine.restore(plain.state())
    return engine, upload(stream.rows.part(0, 30), engine.device, torch.float32)


@pytest.mark.parametrize("idf", [True, False])
def test_unit_rows(idf: bool) -> None:
    engine, rows = learned(Stream.of(1, 60, 30, idf=idf))
    table = torch.rand(rows.width, device=engine.device) + 0.5 if idf else None
    expected = unit_rows(rows, table, torch.float32)
    torch.testing.assert_close(engine._compute.unit_rows(rows, table, torch.float32), expected, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("penalty", [0.0, 0.1])
def test_vectors(dtype: str, penalty: float) -> None:
    engine, _ = learned(Stream.of(2, 80, 40, dtype=dtype, lambda_penalty=penalty))
    view = engine._view()
    made = vectors_of(view.entries, view.roster, view.features, view.omega, view.rule, None)
    slot, value = packed(view.entries, view.rule.tau * view.roster.scale.float(), view.omega, made.value.dtype)
    assert (made.slot == slot).all()
    torch.testing.assert_close(made.value, value, rtol=1e-6 if dtype == "float32" else 1e-2, atol=1e-7)
    assert (made.dense == dense_of(made, COPIES[dtype])).all()
    assert 2.0 ** (int(made.exponent) - 1) <= made.value.abs().max() <= 2.0 ** int(made.exponent)
    assert (made.plays[: view.roster.used] == (view.roster.kind == 1)).all()
    assert not made.plays[view.roster.used :].any()


def test_the_longest_lists_are_hot() -> None:
    begin = torch.cumsum(torch.tensor([0, 5, 90, 0, 80, 3, 100]), 0)
    assert hot_features(begin, 100)[:3].tolist() == [1, 3, 5]
    assert (hot_features(begin, 100)[3:] == -1).all()


@scored
@pytest.mark.parametrize("penalty", [0.0, 0.1])
@pytest.mark.parametrize("depth", [1, 3])
def test_scores_and_rankings(dtype: str, penalty: float, depth: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prototide.core.engines.gpu.vectors.HOT_SHARE", 0.6)
    engine, rows = learned(Stream.of(3, 120, 80, 6, 3, dtype=dtype, lambda_penalty=penalty))
    view = engine._view()
    x = engine._unit_there(rows)
    vectors = engine._compute.vectors(view)
    assert 0 < int((vectors.hot_of >= 0).sum()) < vectors.hot_of.numel()
    score = slot_scores(rows, x, view.entries, view.roster, view.omega, view.rule)[2]
    expected = rank_classes(*best_slots(score, view.roster), depth)
    found = engine._compute.rank(rows, x, view, depth)
    torch.testing.assert_close(found[2], expected[2].to(found[2].dtype), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
    clear = expected[2][:, 0] - rank_classes(*best_slots(score, view.roster), 2)[2][:, 1] > 2 * TOLERANCE[dtype]
    assert (found[0][clear, 0] == expected[0][clear, 0]).all()
    assert (found[1][clear, 0] == expected[1][clear, 0]).all()
    everything = fast_scoring.scores(rows, x, vectors)[:, : view.roster.used]
    torch.testing.assert_close(everything, score.float(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@pytest.mark.parametrize("size", [1 << 24, 256])
def test_rankings_of_more_slots_than_one_block_takes(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rank_rows, "PART", 256)
    monkeypatch.setattr(fast_scoring, "SLOTS_AT_ONCE", size)
    engine, rows = learned(Stream.of(4, 900, 40, 120, 4, update_rows=100))
    view, x = engine._view(), engine._unit_there(rows)
    score = slot_scores(rows, x, view.entries, view.roster, view.omega, view.rule)[2]
    expected, found = rank_classes(*best_slots(score, view.roster), 4), engine._compute.rank(rows, x, view, 4)
    torch.testing.assert_close(found[2], expected[2].float(), rtol=1e-5, atol=1e-5)
    assert (found[0] == expected[0]).all()


def test_rows_without_entries_and_models_without_prototypes() -> None:
    stream = Stream.of(5, 40, 30)
    engine = stream.triton()
    ranking, ids = engine.rank(stream.rows, 2)
    assert (ranking.classes == -1).all()
    assert (ids == -1).all()
    engine, _ = learned(stream)
    empty = upload(CsrRows(np.zeros(3, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32), 30),
                   engine.device, torch.float32)  # fmt: skip
    assert (engine.rank(empty, 2)[0].scores[:, 0] == 0).all()  # all scores are 0, the lowest slot wins


@pytest.mark.parametrize(
    ("penalty", "soft", "soft_type", "k"),
    [(0.0, False, "linear", 1), (0.0, True, "softmax", 3), (0.1, True, "linear", 3), (0.1, True, "linear", 1)],
)
def test_classes_learn(penalty: float, soft: bool, soft_type: str, k: int) -> None:
    stream = Stream.of(6, 40, 24, 3, k, lambda_penalty=penalty, soft=soft, soft_type=soft_type, update_rows=20)
    ours, theirs = stream.triton(), stream.torch()
    assert_same_answers(stream.learn(ours, 40), stream.learn(theirs, 40), 1e-4)
    assert_close(ours, theirs, 1e-4)


@pytest.mark.parametrize(("seed", "penalty", "trial_rows"), [(2, 0.1, 200), (0, 0.0, 200), (2, 0.1, 3)])
def test_trials_are_born_promoted_and_discarded(seed: int, penalty: float, trial_rows: int) -> None:
    stream = Stream.of(seed, 150, 6, 2, 4, lambda_penalty=penalty, update_rows=50)
    X, y = two_faced_class(seed, 150)
    stream.rows, stream.classes = canonical_rows(X.astype(np.float32)), np.where(stream.classes < 0, -1, y).astype("i4")
    ours, theirs = stream.triton(), stream.torch()
    for engine in (ours, theirs):
        engine.rule = engine.rule._replace(trial_rows=trial_rows)
        stream.learn(engine, 150)
    assert theirs.counts["born"] > 2 or trial_rows == 3
    assert theirs._classes.wait.max() > theirs.rule.grow_after or trial_rows == 200
    assert_close(ours, theirs, 1e-3)


@pytest.mark.parametrize(("old", "new"), [(0, 5), (3000, 0), (3000, 700), (5, 3000)])
def test_entries_move_to_their_places(old: int, new: int) -> None:
    random = np.random.default_rng(old)
    keys = torch.tensor(random.permutation(20_000)[: old + new], device=DEVICE)
    key, added = keys[:old].sort().values, keys[old:].sort().values
    for columns in (2, 3):
        values = [torch.rand(old, device=DEVICE) for _ in range(columns)]
        (expected, *expected_values), (found, *found_values) = (
            [there[0], *there[1]]
            for there in (entries.moved(key, values, added), fast_learning.moved(key, values, added))
        )
        at = torch.arange(old, device=DEVICE) + torch.searchsorted(added, key)
        assert found.numel() == old + new
        assert (found[at] == key).all()
        for mine, reference in zip([found, *found_values], [expected, *expected_values], strict=True):
            assert (mine[at] == reference[at]).all()


def test_rows_without_non_zeros_are_answered_while_trials_run() -> None:
    stream = Stream.of(0, 60, 12, 2, 12, lambda_penalty=0.0, update_rows=20)
    X, y = two_faced_class(0, 60, sides=6)
    stream.rows, stream.classes, stream.weight = canonical_rows(X), y.astype(np.int32), np.ones(60)
    plain, engine = stream.plain(), stream.triton()
    stream.learn(plain, 20)
    engine.restore(plain.state())
    assert (engine._classes.trial >= 0).any()
    empty = canonical_rows(sp.csr_matrix((3, stream.rows.width)))
    ours, theirs = (each.learn(empty, np.full(3, -1, np.int32), np.ones(3), 2).ranking for each in (engine, plain))
    np.testing.assert_array_equal(ours.scores, theirs.scores)

from __future__ import annotations

import pytest
import torch

from prototide.core.engines.gpu import memory
from tests.core.conftest import ENGINES
from tests.core.engines.gpu.problems import Stream
from tests.core.inspecting import fingerprint
from tests.core.streams import text_stream

RULE = Stream.of(0, 1, lambda_penalty=0.1, dtype="bfloat16").device().rule


def test_the_headline_model_needs_what_was_promised() -> None:
    assert memory.need(15_000, 100_000, 40_000_000, 7_000_000, 7_000_000, RULE).total < 10e9
    bare = RULE._replace(correction=0.0, pmi=0.0)
    assert memory.need(15_000, 100_000, 10_000_000, 2_200_000, 2_200_000, bare).total < 7e9


def test_the_need_is_told_by_purpose() -> None:
    need = memory.need(15_000, 100_000, 10_000_000, 0, 0, RULE)
    assert need.total == need.entries + need.vectors + need.statistics + need.buffers
    assert str(need).startswith(f"{need.total / 1e9:.2f} GB (entries {need.entries / 1e9:.2f}, ")


def test_a_model_that_does_not_fit_is_refused_with_the_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2 << 30, 80 << 30))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 1 << 30)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 1 << 29)
    device, small = torch.device("cuda"), memory.need(100, 100, 1000, 0, 0, RULE)
    memory.check(device, small, 0, "a model")
    large = memory.need(15_000, 100_000, 200_000_000, 0, 0, RULE)
    with pytest.raises(MemoryError, match=r"a model may need .* GB .*on cuda, where 2.42 of 85.90 GB are free"):
        memory.check(device, large, 0, "a model")


def test_a_refused_batch_leaves_the_model_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = text_stream(3, 60)
    model = ENGINES["gpu"]()
    model.learn(X, y)
    before = fingerprint(model)

    def refuse(*_: object) -> None:
        raise MemoryError("too large")

    monkeypatch.setattr(memory, "check", refuse)
    with pytest.raises(MemoryError, match="too large"):
        model.learn(X, [f"new {label}" for label in y])
    assert fingerprint(model) == before


def test_a_batch_of_a_million_rows_needs_the_buffers_of_one_group() -> None:
    engine = Stream.of(0, 1, lambda_penalty=0.1, dtype="bfloat16").device()
    million, group = engine.need(73_000_000, 1_000_000), engine.need(73 * 65_536, 65_536)
    assert million.total < 80e9
    assert million.buffers < 4 * group.buffers

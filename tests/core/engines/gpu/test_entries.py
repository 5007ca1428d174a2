from __future__ import annotations

import numpy as np
import pytest
import torch

from prototide.core.engines.gpu.entries import Entries, columns, keys_of
from tests.core.engines.gpu.conftest import DEVICE


def made(seed: int, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys, some of them twice, and values."""
    random = np.random.default_rng(seed)
    feature, slot = random.integers(0, 20, count), random.integers(0, 10, count)
    keys = keys_of(torch.tensor(feature, device=DEVICE), torch.tensor(slot, device=DEVICE))
    return keys, torch.tensor(random.standard_normal((count, 3)), device=DEVICE)


@pytest.mark.parametrize("informed", [False, True])
def test_adding_is_adding_to_a_dictionary(informed: bool) -> None:
    entries, expected = Entries(torch.float64, torch.device(DEVICE)), {}
    if informed:
        entries.inform()
    for seed, count in enumerate((0, 5, 60, 1, 200)):
        keys, values = made(seed, count)
        entries.add(keys, values)
        for key, value in zip(keys.tolist(), values.cpu().numpy(), strict=True):
            expected[key] = expected.get(key, 0) + value
    assert entries.key.tolist() == sorted(expected)
    for column, array in enumerate(entries.values):
        np.testing.assert_allclose(array.cpu().numpy(), [expected[key][column] for key in sorted(expected)], rtol=1e-12)
    assert len(entries.values) == 2 + informed
    assert entries.nbytes == len(expected) * (8 + 8 * len(entries.values))


def test_entries_are_found_listed_and_dropped() -> None:
    entries = Entries(torch.float32, torch.device(DEVICE))
    assert entries.find(torch.tensor([7], device=DEVICE)).tolist() == [-1]
    feature, slot = torch.tensor([3, 3, 8], device=DEVICE), torch.tensor([1, 4, 1], device=DEVICE)
    entries.add(keys_of(feature, slot), columns(torch.tensor([1.0, 2.0, 3.0], device=DEVICE)))
    wanted = keys_of(torch.tensor([8, 3, 3, 9]), torch.tensor([1, 4, 2, 1])).to(DEVICE)
    assert entries.find(wanted).tolist() == [2, 1, -1, -1]
    start, length = entries.lists(torch.tensor([3, 5, 8], device=DEVICE))
    assert (start.tolist(), length.tolist()) == ([0, 2, 2], [2, 0, 1])
    entries.keep(entries.of_slots(torch.tensor([False, True, False, False, False], device=DEVICE)))
    assert (entries.slot.tolist(), entries.feature.tolist(), entries.M.tolist()) == ([1, 1], [3, 8], [1.0, 3.0])


def test_inserting_keys_that_are_new_is_adding_them() -> None:
    added, inserted = (Entries(torch.float64, torch.device(DEVICE)) for _ in range(2))
    for feature in ([5, 1, 9], [3, 0, 12, 4]):
        keys = keys_of(torch.tensor(feature, device=DEVICE), torch.tensor([2, 1, 0, 6][: len(feature)], device=DEVICE))
        values = columns(torch.arange(1.0, len(feature) + 1, device=DEVICE, dtype=torch.float64))
        added.add(keys, values)
        inserted.insert(keys, values)
    assert (inserted.key == added.key).all()
    assert inserted.feature.tolist() == [0, 1, 3, 4, 5, 9, 12]
    assert inserted.M.tolist() == added.M.tolist() == [2.0, 2.0, 1.0, 4.0, 1.0, 3.0, 3.0]

from __future__ import annotations

import numpy as np
import pytest
import torch

from prototide.core.engines.gpu.sums import ranges, sums_by, whole_sums
from tests.core.engines.gpu.conftest import DEVICE


@pytest.mark.parametrize("scale", [1e-200, 1e-30, 1.0, 1e30])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_whole_numbers_add_up_as_floating_point_does(scale: float, shape: tuple[int, ...]) -> None:
    random = np.random.default_rng(1)
    values = scale * torch.tensor(random.standard_normal((5000, *shape)), device=DEVICE)
    index = torch.tensor(random.integers(0, 40, 5000), device=DEVICE)
    exact = np.zeros((50, *shape))
    np.add.at(exact, index.cpu().numpy(), values.cpu().numpy())
    for sums in (whole_sums, sums_by):
        np.testing.assert_allclose(sums(values, index, 50).cpu().numpy(), exact, rtol=1e-9, atol=1e-12 * scale)


def test_the_order_of_the_terms_changes_no_bit() -> None:
    random = np.random.default_rng(2)
    values = torch.tensor(random.standard_normal(3000) * 10.0 ** random.integers(-9, 9, 3000), device=DEVICE)
    index = torch.tensor(random.integers(0, 5, 3000), device=DEVICE)
    first = whole_sums(values, index, 5)
    for seed in range(5):
        order = torch.tensor(np.random.default_rng(seed).permutation(3000), device=DEVICE)
        assert (whole_sums(values[order], index[order], 5) == first).all()


def test_no_terms_and_terms_of_zero_give_zeros() -> None:
    index = torch.zeros(4, dtype=torch.int64, device=DEVICE)
    for values in (torch.zeros(4, device=DEVICE), torch.zeros(0, device=DEVICE)):
        assert whole_sums(values, index[: values.numel()], 3).tolist() == [0.0, 0.0, 0.0]


def test_ranges_count_through_every_list() -> None:
    which, at = ranges(torch.tensor([5, 2, 9]), torch.tensor([2, 0, 3]))
    assert which.tolist() == [0, 0, 2, 2, 2]
    assert at.tolist() == [5, 6, 9, 10, 11]

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from prototide.core.engines.gpu.sums import alike_sums, ranges, squares_by, sums_by, whole_sums
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


def test_small_sums_beside_large_ones_keep_their_precision() -> None:
    random = np.random.default_rng(3)
    index = torch.tensor(random.integers(0, 7, 900), device=DEVICE)
    size = 10.0 ** torch.arange(-90, 50, 20, device=DEVICE, dtype=torch.float64)
    values = torch.tensor(random.standard_normal(900), device=DEVICE) * size[index]
    exact = np.zeros(7)
    np.add.at(exact, index.cpu().numpy(), values.cpu().numpy())
    np.testing.assert_allclose(whole_sums(values, index, 7).cpu().numpy(), exact, rtol=1e-12)
    squares = np.bincount(index.cpu().numpy(), values.cpu().numpy() ** 2)
    most = torch.tensor(squares * random.uniform(0.3, 1000, 7), device=DEVICE)
    np.testing.assert_allclose(squares_by(values, index, most).cpu().numpy(), squares, rtol=1e-11)


@pytest.mark.parametrize("sums", [alike_sums, whole_sums])
def test_sums_of_terms_of_one_size(sums: Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]) -> None:
    values, index = torch.tensor([1.0, 2.5, -4.0], device=DEVICE), torch.tensor([2, 0, 2], device=DEVICE)
    assert sums(values, index, 4).tolist() == [2.5, 0.0, -3.0, 0.0]


def test_no_terms_and_terms_of_zero_give_zeros() -> None:
    index = torch.zeros(4, dtype=torch.int64, device=DEVICE)
    for values in (torch.zeros(4, device=DEVICE), torch.zeros(0, device=DEVICE)):
        assert whole_sums(values, index[: values.numel()], 3).tolist() == [0.0, 0.0, 0.0]


def test_ranges_count_through_every_list() -> None:
    which, at = ranges(torch.tensor([5, 2, 9]), torch.tensor([2, 0, 3]))
    assert which.tolist() == [0, 0, 2, 2, 2]
    assert at.tolist() == [5, 6, 9, 10, 11]

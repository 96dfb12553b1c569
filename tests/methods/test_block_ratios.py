"""Ratios of blocks keep their mean and their bounds, whatever the numbers behind them."""

import numpy as np
import pytest
import torch

from src.common.errors import UserError
from src.methods.block_ratios import bounded, grid, published, require_published

COUNTED = torch.tensor([11.0, 10.0, 5.0], dtype=torch.float64) / 26


def scores(seed: int, size: float = 1.0) -> torch.Tensor:
    return size * torch.randn(3, generator=torch.Generator().manual_seed(seed),
                              dtype=torch.float64)


@pytest.mark.parametrize("mean", [0.05, 0.2, 0.5, 0.9])
@pytest.mark.parametrize("size", [0.1, 3.0, 15.0])
def test_the_mean_is_exact_and_no_ratio_leaves_its_bounds(mean, size):
    for seed in range(10):
        found = bounded(scores(seed, size), COUNTED, mean)
        assert abs((COUNTED * found).sum().item() - mean) < 1e-9
        assert found.min() >= 0 and found.max() <= 1
    found = bounded(scores(0, size), COUNTED, 0.4, 0.3, 0.6)
    assert abs((COUNTED * found).sum().item() - 0.4) < 1e-9
    assert found.min() >= 0.3 and found.max() <= 0.6


def test_equal_numbers_are_uniform():
    for each in (bounded(torch.full((3,), 2.0, dtype=torch.float64), COUNTED, 0.3),
                 published(torch.zeros(3, dtype=torch.float64), 0.3, 0.2)):
        assert torch.allclose(each, torch.full((3,), 0.3, dtype=torch.float64), atol=1e-12)


def test_the_gradient_is_that_of_finite_differences():
    given = scores(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: bounded(s, COUNTED, 0.3), (given,))
    assert torch.autograd.gradcheck(lambda s: bounded(s, COUNTED, 0.3, 0.1, 0.8), (given,))
    assert torch.autograd.gradcheck(lambda s: published(s, 0.3, 0.2), (given,))


def test_every_ratio_follows_when_one_number_changes():
    """In the published code a stale copy gave all blocks one ratio while they were learned."""
    before, after = scores(0), scores(0) + torch.tensor([1.0, 0, 0], dtype=torch.float64)
    moved = bounded(after, COUNTED, 0.3) - bounded(before, COUNTED, 0.3)
    assert moved[0] > 0.01 and moved[1] < 0 and moved[2] < 0


def test_the_published_form_has_the_range_that_its_code_has():
    far = torch.tensor([60.0, -60, -60], dtype=torch.float64)
    assert published(far, 0.2, 0.2).tolist() == pytest.approx([0.45, 0.075, 0.075], abs=1e-9)
    assert published(-far, 0.2, 0.2)[0].item() == pytest.approx(0.0461538, abs=1e-6)
    require_published(3, 0.2, 0.2)
    for blocks, mean in ((3, 0.5), (26, 0.2)):
        with pytest.raises(UserError, match="above 1"):
            require_published(blocks, mean, 0.2)


def test_a_grid_is_of_all_ratios_with_that_mean():
    counted = np.full(3, 1 / 3)
    points = grid(counted, 0.2, 0.0, 1.0, 10)
    assert points[0].tolist() == [0.2, 0.2, 0.2]
    assert np.abs(points @ counted - 0.2).max() < 1e-12
    assert points.min() >= 0 and points.max() <= 1
    tenths = {(i, j, 6 - i - j) for i in range(7) for j in range(7 - i)}
    assert {tuple(np.round(10 * point).astype(int)) for point in points[1:]} == tenths
    with pytest.raises(UserError, match="fewer blocks"):
        grid(np.full(9, 1 / 9), 0.2, 0.0, 1.0, 10)

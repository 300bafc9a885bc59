"""Spatial pooling against PyTorch's own, whose arithmetic the published models were trained with."""

import pytest
import torch
from torch.nn.functional import avg_pool2d, interpolate

from storm_edge.export.network.pooling import Pooling
from storm_edge.runtime.config.schema import ReductionConfig, StormConfig, TemporalConfig, VisionConfig


def _pooled(grid: int, side: int, mode: str, x: torch.Tensor) -> torch.Tensor:
    config = StormConfig(
        vision=VisionConfig(image_size=14 * grid),
        temporal=TemporalConfig(downsample=1),
        reduction=ReductionConfig(temporal_pool=1, spatial_pool=side, spatial_mode=mode),
    )
    pooled = Pooling(config)(x.permute(0, 2, 3, 1).reshape(1, len(x) * grid * grid, -1), len(x))
    assert pooled.shape[2] == config.pooled_tokens_per_frame
    return pooled[0].reshape(len(x), config.pooled_grid, config.pooled_grid, -1).permute(0, 3, 1, 2)


@pytest.mark.parametrize(("grid", "side"), [(27, 2), (32, 2), (5, 2), (27, 3), (27, 4), (7, 7), (9, 1)])
def test_bilinear_pooling_is_interpolation_to_the_rounded_up_side(grid: int, side: int) -> None:
    x = torch.randn(3, 8, grid, grid)
    size = -(-grid // side)
    expected = interpolate(x, size=(size, size), mode="bilinear")
    torch.testing.assert_close(_pooled(grid, side, "bilinear", x), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("grid", "side"), [(27, 2), (32, 2), (27, 4)])
def test_cropped_averaging_drops_incomplete_blocks(grid: int, side: int) -> None:
    x = torch.randn(2, 8, grid, grid)
    torch.testing.assert_close(_pooled(grid, side, "cropped_mean", x), avg_pool2d(x, side))


def test_averaging_of_blocks_that_do_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="does not divide the 27 x 27"):
        _pooled(27, 2, "mean", torch.zeros(1, 8, 27, 27))

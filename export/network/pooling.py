"""Trained pooling: consecutive frames into one, and neighbouring visual tokens of a frame into one."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from storm_edge.runtime.config.schema import StormConfig


class Pooling(nn.Module):
    """tokens (1, frames * N, D) -> visual tokens (1, frames / k, N / p, D); `frames` is a multiple of k."""

    def __init__(self, config: StormConfig):
        super().__init__()
        self.grid, self.cells = config.token_grid, config.pooled_grid
        self.k, self.side = config.reduction.temporal_pool, config.reduction.spatial_pool
        self.bilinear = config.reduction.spatial_mode == "bilinear"

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """Pool the visual tokens of a clip."""
        width = x.shape[2]
        x = x.reshape(1, frames // self.k, self.k, self.grid * self.grid, width).mean(dim=2)  # (1, frames / k, N, D)
        if self.side == 1:
            return x
        if self.bilinear:
            x = x.reshape(1, frames // self.k, self.grid, self.grid, width)
            # In fp32 whatever the model's type: the shares are constants of the graph, and 16 bits would round them.
            x = interpolated(interpolated(x.float(), 2, self.cells), 3, self.cells).to(x.dtype)
        else:
            if (whole := self.cells * self.side) < self.grid:
                x = x.reshape(1, frames // self.k, self.grid, self.grid, width)[:, :, :whole, :whole]
            x = x.reshape(1, frames // self.k, self.cells, self.side, self.cells, self.side, width).mean(dim=(3, 5))
        return x.reshape(1, frames // self.k, self.cells * self.cells, width)


def interpolated(x: Tensor, axis: int, size: int) -> Tensor:
    """`x` with `size` places along an axis, each linear between its two neighbours.

    Coordinates are those of torch.nn.functional.interpolate(align_corners=False), whose two-dimensional "bilinear" this
    makes of one axis after the other. Gather, Mul and Add run everywhere; Resize does not.
    """
    length = x.shape[axis]
    at = ((torch.arange(size, dtype=torch.float64) + 0.5) * (length / size) - 0.5).clamp(min=0)
    low = at.floor().long()
    high = (low + 1).clamp(max=length - 1)
    share = (at - low).to(x.dtype).reshape(-1, *[1] * (x.ndim - axis - 1))  # of the higher neighbour
    return x.index_select(axis, low) * (1 - share) + x.index_select(axis, high) * share

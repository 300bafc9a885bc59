"""mamba_ssm's CUDA kernel in the place of this project's, for comparison on a GPU. Written; it has not run here.

The kernel looks forward only and takes (batch, channels, length): the other direction is flipped there and back, as the
public code of bidirectional Mamba does.
"""

from __future__ import annotations

import importlib
import importlib.util

import torch
from torch import Tensor

from storm_edge.export.network import temporal


def use_mamba_ssm() -> bool:
    """Let every temporal encoder scan with mamba_ssm where that is installed and there is a GPU; says whether."""
    found = torch.cuda.is_available() and importlib.util.find_spec("mamba_ssm") is not None
    if found:
        temporal.selective_scan = mamba_ssm_scan
    return found


def mamba_ssm_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor,
    z: Tensor,
    delta_bias: Tensor,
    initial_state: Tensor,
    reverse: bool = False,
) -> tuple[Tensor, Tensor]:
    """As `plugins.selective_scan.torch_op.selective_scan`, from a state of zeros only."""
    interface = importlib.import_module("mamba_ssm.ops.selective_scan_interface")
    in_order = (x.flip(1) if reverse else x for x in (u, delta, B, C, z))
    u, delta, B, C, z = (x.transpose(1, 2).contiguous() for x in in_order)  # (batch, channels or state, length)
    y, state = interface.selective_scan_fn(
        u, delta, A, B, C, D, z=z, delta_bias=delta_bias, delta_softplus=True, return_last_state=True
    )
    y = y.transpose(1, 2)
    return (y.flip(1) if reverse else y), state

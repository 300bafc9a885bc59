"""Checkpoint -> the vision and temporal encoders, in fp32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from storm_edge.export.checkpoint.folder import VISION_PREFIX, Checkpoint
from storm_edge.export.checkpoint.shapes import vision_shapes
from storm_edge.export.checkpoint.weights import Weights
from storm_edge.export.network.temporal import TemporalEncoder
from storm_edge.export.network.vision import VisionEncoder
from storm_edge.runtime.config.schema import StormConfig

_Module = TypeVar("_Module", bound=nn.Module)


def load_vision(checkpoint: Checkpoint) -> VisionEncoder:
    """The vision encoder: the tower's blocks that run, and the projector."""
    stored = {name.removeprefix(VISION_PREFIX): name for name in checkpoint.vision.names}
    state = {
        name.replace("encoder.layers.", "blocks."): read_tensor(checkpoint.vision, stored[name])
        for name in vision_shapes(checkpoint.config)
    }
    for name in checkpoint.temporal.names:
        if name.startswith("projector."):
            state[name] = read_tensor(checkpoint.temporal, name)
    return _with_state(VisionEncoder(checkpoint.config), state)


def load_temporal(checkpoint: Checkpoint, config: StormConfig) -> TemporalEncoder:
    """The temporal encoder: the checkpoint's Mamba layers, and the pooling that `config` asks for."""
    names = [name for name in checkpoint.temporal.names if not name.startswith("projector.")]
    return _with_state(TemporalEncoder(config), {name: read_tensor(checkpoint.temporal, name) for name in names})


def read_tensor(weights: Weights, name: str) -> Tensor:
    """One tensor as fp32."""
    return torch.from_numpy(np.asarray(weights.read(name), dtype=np.float32))


def _with_state(module: _Module, state: Mapping[str, Tensor]) -> _Module:
    module.load_state_dict(state, strict=True)
    return module.eval().requires_grad_(False)

"""Checkpoint -> the vision and temporal encoders, in fp32."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from storm_edge.export.checkpoint.folder import VISION_PREFIX, Checkpoint
from storm_edge.export.checkpoint.shapes import NEWLINE, is_scan_constant, temporal_shapes, vision_shapes
from storm_edge.export.checkpoint.weights import Weights
from storm_edge.export.network.temporal import TemporalEncoder
from storm_edge.export.network.vision import VisionEncoder
from storm_edge.runtime.config.schema import DType, StormConfig

_Module = TypeVar("_Module", bound=nn.Module)


def load_vision(checkpoint: Checkpoint, dtype: DType = "float32") -> VisionEncoder:
    """The vision encoder in fp32, its values rounded to `dtype`: the tower's blocks that run, and the projector."""
    stored = {name.removeprefix(VISION_PREFIX): name for name in checkpoint.vision.names}
    state = {
        name.replace("encoder.layers.", "blocks."): read_tensor(checkpoint.vision, stored[name], dtype)
        for name in vision_shapes(checkpoint.config)
    }
    for name in temporal_shapes(checkpoint.config):
        if name.startswith("projector."):
            state[name] = read_tensor(checkpoint.temporal, name, dtype)
    return _with_state(VisionEncoder(checkpoint.config), state)


def load_temporal(checkpoint: Checkpoint, config: StormConfig, dtype: DType = "float32") -> TemporalEncoder:
    """The temporal encoder: the checkpoint's Mamba layers, and the pooling that `config` asks for.

    In fp32, the values rounded to `dtype` but for those that the scan reads as f32.
    """
    state = {
        name: read_tensor(checkpoint.temporal, name, "float32" if is_scan_constant(name) else dtype)
        for name in temporal_shapes(checkpoint.config)
        if name.startswith("layers.")
    }
    return _with_state(TemporalEncoder(config), state)


def load_line_end(checkpoint: Checkpoint, dtype: DType = "float32") -> Tensor | None:
    """The trained line end (D,) in fp32, its values rounded to `dtype`; None of a model without."""
    if checkpoint.config.reduction.image_newline == "none":
        return None
    return read_tensor(checkpoint.temporal, NEWLINE, dtype)


def read_tensor(weights: Weights, name: str, dtype: DType = "float32") -> Tensor:
    """One tensor as fp32, its values rounded to `dtype`; raises UsageError where they do not fit."""
    return torch.from_numpy(np.asarray(weights.read(name, dtype), dtype=np.float32))


def _with_state(module: _Module, state: Mapping[str, Tensor]) -> _Module:
    module.load_state_dict(state, strict=True)
    return module.eval().requires_grad_(False)

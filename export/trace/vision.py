"""The vision graph: frames uint8 [frames, H, W, 3] -> tokens T[frames, N, D], opset 24."""

from __future__ import annotations

import onnx
import torch
from torch.export import Dim

from storm_edge.export.network.vision import VisionEncoder
from storm_edge.export.passes.name_axes import name_axes
from storm_edge.export.passes.strip_metadata import strip_metadata
from storm_edge.export.trace.dynamo import trace
from storm_edge.runtime.config.schema import StormConfig

OPSET = 24  # the first with an Attention operator that every backend of ours fuses


def trace_vision(encoder: VisionEncoder, config: StormConfig) -> onnx.ModelProto:
    """Trace the vision encoder; tokens have the dtype of its parameters."""
    side = config.vision.image_size
    example = torch.zeros(3, side, side, 3, dtype=torch.uint8)
    model = trace(
        encoder,
        [example],
        inputs=["frames"],
        outputs=["tokens"],
        dynamic_shapes=[{0: Dim("frames")}],
        opset=OPSET,
    )
    name_axes(
        model,
        {"frames": ("frames", side, side, 3), "tokens": ("frames", config.tokens_per_frame, config.llm.hidden_size)},
        symbol="frames",
    )
    strip_metadata(model)
    return model

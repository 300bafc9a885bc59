"""The temporal graph: tokens T[1, frames, N, D] -> visual_tokens T[1, frames / k, N / p, D], opset 20.

Scan and convolution are nodes of domain `storm`; model-local functions of the same names give them a body in standard
operators, so that the file runs where no native form is registered.
"""

from __future__ import annotations

import math

import onnx
import torch
from torch.export import Dim

from storm_edge.export.network.temporal import TemporalEncoder
from storm_edge.export.passes.name_axes import name_axes
from storm_edge.export.passes.strip_metadata import strip_metadata
from storm_edge.export.trace.dynamo import trace
from storm_edge.plugins.causal_conv1d.onnx_function import causal_conv1d_function
from storm_edge.plugins.selective_scan.onnx_function import selective_scan_function
from storm_edge.runtime.config.schema import StormConfig

OPSET = 20  # the newest that TensorRT 10.3 parses


def trace_temporal(encoder: TemporalEncoder, config: StormConfig, dtype: torch.dtype) -> onnx.ModelProto:
    """Trace the temporal encoder; `dtype` is that of its parameters, inputs and outputs."""
    k, width, per_frame = config.reduction.temporal_pool, config.llm.hidden_size, config.tokens_per_frame
    # Below 8 frames the exporter specialises on the number of groups.
    example = torch.zeros(1, k * max(2, math.ceil(8 / k)), per_frame, width, dtype=dtype)
    frames = k * Dim("groups", min=1) if k > 1 else Dim("frames", min=1)
    model = trace(
        encoder,
        [example],
        inputs=["tokens"],
        outputs=["visual_tokens"],
        dynamic_shapes=[{1: frames}],
        opset=OPSET,
    )
    name_axes(
        model,
        {
            "tokens": (1, "frames", per_frame, width),
            "visual_tokens": (1, "pooled_frames", config.pooled_tokens_per_frame, width),
        },
        symbol="groups",
    )
    used = {node.op_type for node in model.graph.node if node.domain == "storm"}
    functions = (selective_scan_function(OPSET), causal_conv1d_function(config.temporal.d_conv, OPSET))
    model.functions.extend(function for function in functions if function.name in used)
    strip_metadata(model)
    return model

"""Pin the KV length: TensorRT wants the key-value cache's axis fixed ("must have a static sequence length")."""

from __future__ import annotations

import onnx

from storm_edge.export.passes.step import Step


def pin_length(model: onnx.ModelProto, axis: str, length: int) -> None:
    """Give the axis called `axis` the fixed size `length` wherever it occurs, in place."""
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param == axis:
                dim.dim_value = length


def pin_length_step(axis: str, length: int) -> Step:
    """The pass for a build."""
    return Step("pin length", 1, lambda model, _: pin_length(model, axis, length), str(length))

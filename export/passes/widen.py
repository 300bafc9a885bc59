"""Widen to fp32: ONNX Runtime's CPU has no bf16 MatMul, and fp16 there is emulated and slow."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from storm_edge.export.graph_file import Reader
from storm_edge.export.passes.step import Step
from storm_edge.export.passes.tensors import HALVES, retype


def widen(model: onnx.ModelProto, readers: dict[str, Reader]) -> None:
    """Make every fp16 and bf16 tensor of the graph fp32, in place; casts to them become casts to fp32.

    Values are unchanged: both types are subsets of fp32. `readers` are those of the initializers without values.
    """
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in HALVES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        if tensor.data_type in HALVES:
            retype(tensor, readers, "float32")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype", "softmax_precision") and attribute.i in HALVES:
                attribute.i = TensorProto.FLOAT
            elif attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type in HALVES:
                retype(attribute.t, {}, "float32")


def widen_step() -> Step:
    """The pass for a build."""
    return Step("widen", 1, widen)

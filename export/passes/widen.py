"""Widen to fp32: ONNX Runtime's CPU has no bf16 MatMul, and fp16 there is emulated and slow."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

_HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def widen(model: onnx.ModelProto) -> None:
    """Make every fp16 and bf16 tensor of the graph fp32, in place; casts to them become casts to fp32.

    Values are unchanged: both types are subsets of fp32. Initializers must be loaded, not external.
    """
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.tensor_type.elem_type in _HALVES:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in ("to", "dtype", "softmax_precision") and attribute.i in _HALVES:
                attribute.i = TensorProto.FLOAT
            elif attribute.type == onnx.AttributeProto.TENSOR:
                _widen_tensor(attribute.t)


def _widen_tensor(tensor: onnx.TensorProto) -> None:
    if tensor.data_type in _HALVES:
        wide = numpy_helper.to_array(tensor).astype(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))

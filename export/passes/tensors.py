"""Initializers of a graph whose values may lie in a data file: reading and retyping them one at a time."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from storm_edge.export.checkpoint.weights import Array, convert
from storm_edge.export.graph_file import Reader
from storm_edge.runtime.config.schema import DType

FLOATS: dict[DType, int] = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
}
HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)


def values(tensor: onnx.TensorProto, readers: dict[str, Reader]) -> Array:
    """An initializer's values, read now."""
    return readers[tensor.name]() if tensor.name in readers else numpy_helper.to_array(tensor)


def retype(tensor: onnx.TensorProto, readers: dict[str, Reader], dtype: DType) -> None:
    """Make a floating initializer `dtype`, in place; values behind a reader are converted when they are read."""
    name = tensor.name
    reader = readers.get(name)
    if reader is None:
        tensor.CopyFrom(numpy_helper.from_array(convert(numpy_helper.to_array(tensor), dtype, name), name))
        return
    tensor.data_type = FLOATS[dtype]
    readers[name] = lambda: convert(np.asarray(reader()), dtype, name)

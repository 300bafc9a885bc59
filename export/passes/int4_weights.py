"""Int4 weights: blocks of a linear layer's inputs share one scale; ONNX's DequantizeLinear undoes it (opset 21)."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

from storm_edge.export.checkpoint.weights import Array
from storm_edge.export.graph_file import Reader
from storm_edge.export.passes.tensors import values

LARGEST = 7  # symmetric: -7..7, so that a block's scale is its largest magnitude over 7


def int4_weights(model: onnx.ModelProto, readers: dict[str, Reader], block: int, keep: frozenset[str]) -> list[str]:
    """Quantize the weight [inputs, outputs] of every MatMul but those in `keep`, in place; returns their names.

    Round to nearest, no calibration. A weight whose inputs are no multiple of `block` is left as it is.
    """
    graph = model.graph
    tensors = {t.name: t for t in graph.initializer}
    done: list[str] = []
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        name = node.input[1] if node.op_type == "MatMul" else ""
        tensor = tensors.get(name)
        if tensor is not None and name not in keep and len(tensor.dims) == 2 and tensor.dims[0] % block == 0:
            if name not in done:
                nodes.append(_quantize(graph, tensor, readers, block))
                done.append(name)
            node.input[1] = f"{name}.dequantized"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return done


def _quantize(
    graph: onnx.GraphProto, tensor: onnx.TensorProto, readers: dict[str, Reader], block: int
) -> onnx.NodeProto:
    name, (rows, columns) = tensor.name, tensor.dims
    kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    source = onnx.TensorProto()
    source.CopyFrom(tensor)
    held = {name: readers.pop(name)} if name in readers else {}

    def blocks() -> Array:
        return values(source, held).astype(np.float32).reshape(rows // block, block, columns)

    def scales() -> Array:
        scale = np.abs(blocks()).max(axis=1) / LARGEST  # (rows / block, columns)
        return np.where(scale == 0, 1, scale).astype(kind)

    def quantized() -> Array:
        # Divided by the scale as it is stored, so that its rounding is not added to the weight's.
        integers = np.rint(blocks() / scales().astype(np.float32)[:, None])
        return integers.clip(-LARGEST, LARGEST).reshape(rows, columns).astype(ml_dtypes.int4)

    graph.initializer.remove(tensor)
    scale_name, quantized_name = f"{name}.scale", f"{name}.int4"
    graph.initializer.append(TensorProto(name=quantized_name, data_type=TensorProto.INT4, dims=[rows, columns]))
    graph.initializer.append(TensorProto(name=scale_name, data_type=source.data_type, dims=[rows // block, columns]))
    readers[quantized_name], readers[scale_name] = quantized, scales
    result = f"{name}.dequantized"
    return helper.make_node(
        "DequantizeLinear", [quantized_name, scale_name], [result], name=result, axis=0, block_size=block
    )

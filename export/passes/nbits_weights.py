"""Int4 and int8 weights for ONNX Runtime: its MatMulNBits reads block_weights' numbers, a block of inputs to a scale.

The kernel rounds activations to 8 bits block by block as it goes.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper

from storm_edge.export.checkpoint.weights import Array
from storm_edge.export.graph_file import Reader
from storm_edge.export.passes.int4_blocks import Bits
from storm_edge.export.passes.step import Step
from storm_edge.export.passes.tensors import values

DOMAIN = "com.microsoft"
_ACCURACY_INT8 = 4  # its name for 8-bit activations inside the kernel, for which processors have instructions
_BITS: dict[int, Bits] = {TensorProto.INT4: 4, TensorProto.INT8: 8}


def nbits_weights(model: onnx.ModelProto, readers: dict[str, Reader]) -> list[str]:
    """Make every MatMul with a weight that block_weights quantized a MatMulNBits, in place; returns their weights.

    Where the last block is not full, it is filled up with zeros.
    """
    graph = model.graph
    tensors = {t.name: t for t in graph.initializer}
    undone = {
        node.output[0]: node
        for node in graph.node
        if node.op_type == "DequantizeLinear" and any(a.name == "block_size" and a.i for a in node.attribute)
    }
    packed: dict[str, tuple[list[str], dict[str, int]]] = {}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        source = undone.get(node.input[1]) if node.op_type == "MatMul" else None
        if source is not None:
            if source.output[0] not in packed:
                packed[source.output[0]] = _pack(graph, source, tensors, readers)
            names, attributes = packed[source.output[0]]
            made = helper.make_node("MatMulNBits", [node.input[0], *names], node.output, node.name, domain=DOMAIN)
            made.attribute.extend(helper.make_attribute(key, value) for key, value in attributes.items())
            node.CopyFrom(made)
        if node.output[0] not in undone:
            nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return [name.removesuffix(".dequantized") for name in packed]


def nbits_weights_step() -> Step:
    """The pass for a build."""
    return Step("nbits", 4, nbits_weights)


def _pack(
    graph: onnx.GraphProto, node: onnx.NodeProto, tensors: dict[str, TensorProto], readers: dict[str, Reader]
) -> tuple[list[str], dict[str, int]]:
    """Integers uint8 [outputs, blocks, block * bits / 8] and scales [outputs, blocks] in place of what `node` reads."""
    integers, scale = (tensors[name] for name in node.input)
    (block,) = (a.i for a in node.attribute if a.name == "block_size")
    bits, (rows, columns), blocks = _BITS[integers.data_type], integers.dims, scale.dims[0]
    names, shape, kind = [integers.name, scale.name], [columns, blocks, block * bits // 8], scale.data_type
    middle = 1 << (bits - 1)
    sources = []
    for tensor in (integers, scale):
        sources.append(onnx.TensorProto())
        sources[-1].CopyFrom(tensor)
        graph.initializer.remove(tensor)
    held = {name: readers.pop(name) for name in names if name in readers}

    def packed() -> Array:
        signed = values(sources[0], held).astype(np.int8).T  # (outputs, inputs)
        full = np.pad(signed, ((0, 0), (0, blocks * block - rows))).reshape(columns, blocks, block)
        unsigned = (full.view(np.uint8) + np.uint8(middle)) & np.uint8((1 << bits) - 1)
        return unsigned if bits == 8 else unsigned[..., 0::2] | (unsigned[..., 1::2] << 4)

    def scales() -> Array:
        return np.ascontiguousarray(values(sources[1], held).T)

    graph.initializer.append(TensorProto(name=names[0], data_type=TensorProto.UINT8, dims=shape))
    graph.initializer.append(TensorProto(name=names[1], data_type=kind, dims=[columns, blocks]))
    readers |= dict(zip(names, (packed, scales), strict=True))
    attributes = {"K": rows, "N": columns, "bits": bits, "block_size": block, "accuracy_level": _ACCURACY_INT8}
    return names, attributes

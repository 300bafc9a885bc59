"""Int4 and int8 weights for ONNX Runtime: its MatMulNBits reads them as they are, a block of inputs to a scale.

Weights only, round to nearest, no calibration. The kernel rounds activations to 8 bits block by block as it goes.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import onnx
from onnx import TensorProto, helper

from storm_edge.export.checkpoint.weights import Array
from storm_edge.export.graph_file import Reader
from storm_edge.export.passes.tensors import values

DOMAIN = "com.microsoft"
Bits = Literal[4, 8]
_ACCURACY_INT8 = 4  # its name for 8-bit activations inside the kernel, for which processors have instructions


def nbits_weights(
    model: onnx.ModelProto, readers: dict[str, Reader], bits: Bits, block: int, in_8: frozenset[str]
) -> list[str]:
    """Make every MatMul with a constant weight [inputs, outputs] a MatMulNBits, in place; returns the weights' names.

    Those in `in_8` take 8 bits whatever `bits` is. Inputs that are no multiple of `block` are filled up with zeros.
    """
    graph = model.graph
    tensors = {t.name: t for t in graph.initializer}
    done: dict[str, list[str]] = {}
    for node in graph.node:
        tensor = tensors.get(node.input[1]) if node.op_type == "MatMul" else None
        if tensor is None or len(tensor.dims) != 2:
            continue
        name, (rows, columns) = tensor.name, tensor.dims
        depth: Bits = 8 if name in in_8 else bits
        if name not in done:
            done[name] = _pack(graph, tensor, readers, depth, block)
        shape = {"K": rows, "N": columns, "bits": depth, "block_size": block, "accuracy_level": _ACCURACY_INT8}
        node.CopyFrom(
            helper.make_node(
                "MatMulNBits", [node.input[0], *done[name]], node.output, name=node.name, domain=DOMAIN, **shape
            )
        )
    model.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return list(done)


def _pack(graph: onnx.GraphProto, tensor: TensorProto, readers: dict[str, Reader], bits: Bits, block: int) -> list[str]:
    """Replace a weight by its integers uint8 [outputs, blocks, block * bits / 8] and scales [outputs, blocks]."""
    name, (rows, columns) = tensor.name, tensor.dims
    blocks = -(-rows // block)
    kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    source = onnx.TensorProto()
    source.CopyFrom(tensor)
    held = {name: readers.pop(name)} if name in readers else {}
    middle = 1 << (bits - 1)

    def blockwise() -> Array:
        weight = values(source, held).astype(np.float32).T  # (outputs, inputs)
        return np.pad(weight, ((0, 0), (0, blocks * block - rows))).reshape(columns, blocks, block)

    def scaled(weight: Array) -> Array:
        # The largest magnitude becomes -8 or -128, whatever its sign: of 16 levels none is given away.
        place = np.abs(weight).argmax(axis=2, keepdims=True)
        # A block of zeros has scale 0, and so gives exactly 0.
        scale: Array = (np.take_along_axis(weight, place, axis=2)[..., 0] / -middle).astype(kind)
        return scale  # (outputs, blocks)

    def quantized() -> Array:
        weight = blockwise()
        # Divided by the scale as it is stored, so that its rounding is not added to the weight's.
        scale = scaled(weight).astype(np.float32)[..., None]
        steps = np.rint(weight / np.where(scale == 0, np.float32(1), scale))
        integers = (steps.clip(-middle, middle - 1) + middle).astype(np.uint8)
        return integers if bits == 8 else integers[..., 0::2] | (integers[..., 1::2] << 4)

    names = [f"{name}.int{bits}", f"{name}.scale"]
    graph.initializer.remove(tensor)
    packed = [columns, blocks, block * bits // 8]
    graph.initializer.append(TensorProto(name=names[0], data_type=TensorProto.UINT8, dims=packed))
    graph.initializer.append(TensorProto(name=names[1], data_type=source.data_type, dims=[columns, blocks]))
    readers[names[0]] = quantized
    readers[names[1]] = lambda: scaled(blockwise())
    return names

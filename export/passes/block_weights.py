"""Int4 and int8 weights: blocks of a linear layer's inputs share a scale; ONNX's DequantizeLinear undoes it (opset 21).

Weights only, no calibration. The numbers are those of int4_blocks; every engine's own form is made from this one.
"""

from __future__ import annotations

from functools import cache

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

from storm_edge.export.checkpoint.weights import Array
from storm_edge.export.graph_file import Reader
from storm_edge.export.passes.int4_blocks import Bits, block_integers, block_scales
from storm_edge.export.passes.step import Step
from storm_edge.export.passes.tensors import values
from storm_edge.runtime.errors import TargetError

# Kept out of int4: logits decide between tokens whose scores nearly tie.
INT4_KEPT = frozenset({"lm_head.weight", "model.embed_tokens.weight"})
_STORED: dict[Bits, tuple[int, type]] = {4: (TensorProto.INT4, ml_dtypes.int4), 8: (TensorProto.INT8, np.int8)}


def block_weights(
    model: onnx.ModelProto,
    readers: dict[str, Reader],
    bits: Bits,
    block: int,
    *,
    keep: frozenset[str] = frozenset(),
    in_8: frozenset[str] = frozenset(),
    partial: bool = False,
) -> list[str]:
    """Quantize the weight [inputs, outputs] of every MatMul but those in `keep`, in place; returns their names.

    Those in `in_8` take 8 bits whatever `bits` is. A weight whose inputs are no multiple of `block` has a smaller last
    block where `partial` allows it, else it is left as it is.
    """
    graph = model.graph
    tensors = {t.name: t for t in graph.initializer}
    done: list[str] = []
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        name = node.input[1] if node.op_type == "MatMul" else ""
        tensor = tensors.get(name)
        taken = tensor is not None and name not in keep and len(tensor.dims) == 2
        if tensor is not None and taken and (partial or tensor.dims[0] % block == 0):
            if name not in done:
                nodes.append(_quantize(graph, tensor, readers, 8 if name in in_8 else bits, block))
                done.append(name)
            node.input[1] = f"{name}.dequantized"
        nodes.append(node)
    del graph.node[:]
    graph.node.extend(nodes)
    return done


def int4_step(block: int) -> Step:
    """The pass for TensorRT, which takes full blocks alone; raises TargetError where no layer has them."""

    def apply(model: onnx.ModelProto, readers: dict[str, Reader]) -> None:
        if not block_weights(model, readers, 4, block, keep=INT4_KEPT):
            raise TargetError(f"no layer's inputs are a multiple of {block}: choose a smaller --int4-block.")

    return Step("int4", 2, apply, str(block))


def blocks_step(bits: Bits, block: int) -> Step:
    """The pass for ONNX Runtime, whose form of the numbers nbits_weights makes."""

    def apply(model: onnx.ModelProto, readers: dict[str, Reader]) -> None:
        block_weights(model, readers, bits, block, in_8=INT4_KEPT, partial=True)

    return Step("blocks", 1, apply, f"{bits} {block}")


def _quantize(
    graph: onnx.GraphProto, tensor: onnx.TensorProto, readers: dict[str, Reader], bits: Bits, block: int
) -> onnx.NodeProto:
    name, (rows, columns) = tensor.name, tensor.dims
    kind = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    stored_as, integer = _STORED[bits]
    source = onnx.TensorProto()
    source.CopyFrom(tensor)
    held = {name: readers.pop(name)} if name in readers else {}

    @cache  # a hundredth of the weight, and dear to find
    def scales() -> Array:
        return block_scales(values(source, held), block, bits)  # (blocks, outputs)

    def integers() -> Array:
        return block_integers(values(source, held), scales(), block, bits).astype(integer)

    graph.initializer.remove(tensor)
    scale_name, integers_name = f"{name}.scale", f"{name}.int{bits}"
    shape = [-(-rows // block), columns]
    graph.initializer.append(TensorProto(name=integers_name, data_type=stored_as, dims=[rows, columns]))
    graph.initializer.append(TensorProto(name=scale_name, data_type=source.data_type, dims=shape))
    readers[integers_name], readers[scale_name] = integers, lambda: scales().astype(kind)
    result = f"{name}.dequantized"
    return helper.make_node(
        "DequantizeLinear", [integers_name, scale_name], [result], name=result, axis=0, block_size=block
    )

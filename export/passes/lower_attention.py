"""Lower Attention and the opset: TensorRT before 10.14 parses neither the operator nor opsets above 20."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from storm_edge.export.passes.step import Step

OPSET, IR_VERSION = 20, 10  # the newest that TensorRT 10.3 parses


def lower_attention(model: onnx.ModelProto, wide_softmax: bool = False) -> None:
    """Replace every unmasked Attention node by Mul, Transpose, MatMul, Softmax, MatMul, in place, and set opset 20.

    Q is scaled before the first product, and MatMul, Softmax, MatMul follow each other in one type: the form that
    TensorRT documents as fused (its guide, "Fused Attention", method 2). `wide_softmax` puts casts to fp32 around
    Softmax instead; TensorRT for RTX 1.7 fuses both.
    Raises ValueError for an Attention with mask, cache, softcap or three-dimensional inputs: none of our graphs has it
    where this pass is used.
    """
    graph = model.graph
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*graph.value_info, *graph.input)}
    nodes: list[onnx.NodeProto] = []
    for node in graph.node:
        nodes.extend(_lowered(node, kinds, graph, wide_softmax) if node.op_type == "Attention" else [node])
    del graph.node[:]
    graph.node.extend(nodes)
    for entry in model.opset_import:
        if entry.domain == "":
            entry.version = min(entry.version, OPSET)
    model.ir_version = min(model.ir_version, IR_VERSION)


def lower_attention_step(wide_softmax: bool) -> Step:
    """The pass for a build."""
    return Step("lower attention", 2, lambda model, _: lower_attention(model, wide_softmax), f"{wide_softmax}")


def _lowered(
    node: onnx.NodeProto, kinds: dict[str, int], graph: onnx.GraphProto, wide_softmax: bool
) -> list[onnx.NodeProto]:
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    plain = len(node.input) == 3 and len(node.output) == 1 and "scale" in attributes
    if not plain or attributes.get("is_causal") or attributes.get("softcap") or "q_num_heads" in attributes:
        raise ValueError(f"{node.name or node.output[0]} is not a plain attention and cannot be lowered")
    (y,) = node.output
    q, k, v = node.input  # each (batch, heads, length, head)
    kind = kinds[y]
    scale = numpy_helper.from_array(np.array(attributes["scale"], np.float32), f"{y}.scale")
    if kind != TensorProto.FLOAT:
        wide = helper.tensor_dtype_to_np_dtype(kind)
        scale = numpy_helper.from_array(np.array(attributes["scale"]).astype(wide), scale.name)
    graph.initializer.append(scale)
    steps = [
        helper.make_node("Mul", [q, scale.name], [f"{y}.q"]),
        helper.make_node("Transpose", [k], [f"{y}.k"], perm=[0, 1, 3, 2]),
        helper.make_node("MatMul", [f"{y}.q", f"{y}.k"], [f"{y}.scores"]),  # (batch, heads, length, length)
    ]
    weights = f"{y}.scores"
    if kind == TensorProto.FLOAT or not wide_softmax:
        steps.append(helper.make_node("Softmax", [weights], [f"{y}.weights"], axis=-1))
    else:
        steps += [
            helper.make_node("Cast", [weights], [f"{y}.scores.fp32"], to=TensorProto.FLOAT),
            helper.make_node("Softmax", [f"{y}.scores.fp32"], [f"{y}.weights.fp32"], axis=-1),
            helper.make_node("Cast", [f"{y}.weights.fp32"], [f"{y}.weights"], to=kind),
        ]
    steps.append(helper.make_node("MatMul", [f"{y}.weights", v], [y]))
    for step in steps:
        step.name = step.output[0]
    return steps

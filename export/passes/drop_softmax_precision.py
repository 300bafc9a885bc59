"""Drop Attention's softmax_precision: TensorRT's parser refuses it, and its fused kernels compute softmax in fp32."""

from __future__ import annotations

import onnx

from storm_edge.export.passes.step import Step


def drop_softmax_precision(model: onnx.ModelProto) -> None:
    """Remove the attribute from every Attention node, in place."""
    for node in model.graph.node:
        if node.op_type == "Attention":
            kept = [a for a in node.attribute if a.name != "softmax_precision"]
            del node.attribute[:]
            node.attribute.extend(kept)


def drop_softmax_precision_step() -> Step:
    """The pass for a build."""
    return Step("drop softmax precision", 1, lambda model, _: drop_softmax_precision(model))

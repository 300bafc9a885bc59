"""Drop Attention's softmax_precision: TensorRT's parser refuses it, and its fused kernels compute softmax in fp32."""

from __future__ import annotations

import onnx


def drop_softmax_precision(model: onnx.ModelProto) -> None:
    """Remove the attribute from every Attention node, in place."""
    for node in model.graph.node:
        if node.op_type == "Attention":
            kept = [a for a in node.attribute if a.name != "softmax_precision"]
            del node.attribute[:]
            node.attribute.extend(kept)

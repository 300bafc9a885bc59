"""How an operator's ONNX function is made from its schema and the text of its body."""

from __future__ import annotations

import onnx
import onnx.parser

from storm_edge.plugins.op_schema import ATTRIBUTES, Schema


def parse_function(schema: Schema, body: str, opset: int) -> onnx.FunctionProto:
    """The model-local function of an operator; `body` is ONNX text that computes the outputs from the inputs.

    `opset` must be the model's: ONNX Runtime inlines the body into it. Source: the ONNX text format.
    """
    inputs = ", ".join(value.name for value in schema.inputs)
    outputs = ", ".join(value.name for value in schema.outputs)
    return onnx.parser.parse_function(
        f'<domain: "{schema.domain}", opset_import: ["" : {opset}]>\n'
        f"{schema.name} <{', '.join(ATTRIBUTES)}> ({inputs}) => ({outputs})\n{{{body}}}"
    )

"""The process in which graphs with a native operator are loaded and run: a line in describes one, a line out answers.

Lines in are JSON {"op", "inputs": [{"name", "type", "shape"} | null], "outputs", "attributes", "declared", "run"}: null
is an input left out, a type may be "sequence", and "declared" says what the graph tells of the inputs' shapes before
they come: "shape" or "nothing". Lines out are JSON {"outcome": "answer" | "load" | "run", "words"}: where an error was
raised, and which.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from storm_edge.plugins import libraries

TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float64": TensorProto.DOUBLE,
    "int64": TensorProto.INT64,
    "bool": TensorProto.BOOL,
    "string": TensorProto.STRING,
}


def build(case: dict[str, Any]) -> onnx.ModelProto:
    """The model: each input comes as float32 and is made what the case says."""
    given, nodes, names = [], [], []
    for number, value in enumerate(case["inputs"]):
        if value is None:
            names.append("")
            continue
        come, made = f"in_{number}", f"{value['name']}_{number}"
        shape = value["shape"] if case["declared"] == "shape" else None
        given.append(helper.make_tensor_value_info(come, TensorProto.FLOAT, shape))
        if value["type"] == "sequence":
            nodes.append(helper.make_node("SequenceConstruct", [come], [made]))
        else:
            nodes.append(helper.make_node("Cast", [come], [made], to=TYPES[value["type"]]))
        names.append(made)
    nodes.append(helper.make_node(case["op"], names, case["outputs"], domain="storm", **case["attributes"]))
    made = [onnx.ValueInfoProto(name=name) for name in case["outputs"] if name]
    graph = helper.make_graph(nodes, "g", given, made)
    imports = [helper.make_opsetid("", 20), helper.make_opsetid("storm", 1)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10)


def run(case: dict[str, Any], library: str) -> tuple[str, str]:
    """Outcome and words."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 4
    options.register_custom_ops_library(library)
    try:
        model = build(case).SerializeToString()
        session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as e:
        return "load", str(e)
    if not case["run"]:
        return "answer", ""
    rng = np.random.default_rng(0)
    shapes = [value["shape"] for value in case["inputs"] if value is not None]
    inputs = [rng.standard_normal(shape, np.float32) for shape in shapes]
    try:
        session.run(None, {given.name: array for given, array in zip(session.get_inputs(), inputs, strict=True)})
    except Exception as e:
        return "run", str(e)
    return "answer", ""


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # so that nothing that a library prints is taken for an answer
    library = libraries.find_library(libraries.ONNXRUNTIME)
    for line in sys.stdin:
        outcome, words = run(json.loads(line), str(library))
        answers.write(json.dumps({"outcome": outcome, "words": words[:2000]}) + "\n")


if __name__ == "__main__":
    main()

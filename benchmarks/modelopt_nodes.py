"""Quantize a bundle's vision graph with NVIDIA ModelOpt, and compare its Q/DQ with ours; prints Markdown.

    storm build BUNDLE --target thor --precision int8 --prepare-only
    MODELOPT/bin/python benchmarks/modelopt_nodes.py BUNDLE

MODELOPT is an environment of its own, since ModelOpt 0.47 wants older releases of onnx and onnxruntime than storm-edge:
docs/quantization.md says what to install in it. Ranges come from the bundle's reference clips.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from modelopt.onnx.quantization import quantize
from safetensors.numpy import load_file


def count(graph: onnx.GraphProto) -> dict[str, int]:
    """Q/DQ nodes, and what reads a dequantized activation."""
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name for tensor in graph.initializer}
    types = Counter(node.op_type for node in graph.node)
    found = {"QuantizeLinear": types["QuantizeLinear"], "DequantizeLinear": types["DequantizeLinear"]}
    dequantized = {n.output[0]: n for n in graph.node if n.op_type == "DequantizeLinear"}

    def weight(node: onnx.NodeProto) -> bool:
        source = node.input[0]
        return source in constants or makers[source].input[0] in constants

    readers: Counter[str] = Counter()
    for node in graph.node:
        for name in node.input:
            if name in dequantized and not weight(dequantized[name]):
                readers[node.op_type] += 1
    found["weights"] = sum(weight(node) for node in dequantized.values())
    return found | {f"activations read by {kind}": number for kind, number in sorted(readers.items())}


def main() -> None:
    """Print the table."""
    bundle = Path(sys.argv[1])
    [prepared] = [json.loads(path.read_text()) for path in bundle.glob("engines/thor-int8-*/engine.json")]
    graph = bundle / "graphs/vision.onnx"
    frames = np.concatenate(
        [load_file(path)["frames"] for path in sorted((bundle / "reference").glob("*.safetensors"))]
    )
    given: dict[str, Any] = {
        "calibration_data": {onnx.load(graph, load_external_data=False).graph.input[0].name: frames},
        "calibration_method": "max",
        "calibration_eps": ["cpu"],
        "high_precision_dtype": "fp32",
    }
    linear = {"op_types_to_quantize": ["MatMul"]}
    forms = {
        "ModelOpt": {},
        "ModelOpt, MatMul only": linear,
        "ModelOpt, MatMul only, weights stored quantized": {**linear, "dq_only": True},
    }
    columns = {"storm-edge": count(onnx.load(bundle / prepared["graphs"]["vision"], load_external_data=False).graph)}
    with tempfile.TemporaryDirectory() as folder:
        for name, options in forms.items():
            path = Path(folder) / "out.onnx"
            quantize(str(graph), quantize_mode="int8", output_path=str(path), **given, **options)
            columns[name] = count(onnx.load(path, load_external_data=False).graph)
    print(f"ModelOpt {importlib.metadata.version('nvidia-modelopt')}, int8\n")
    print(f"| | {' | '.join(columns)} |\n|---|{'---|' * len(columns)}")
    for row in sorted({row for column in columns.values() for row in column}):
        print(f"| {row} | {' | '.join(str(column.get(row, 0)) for column in columns.values())} |")


if __name__ == "__main__":
    main()

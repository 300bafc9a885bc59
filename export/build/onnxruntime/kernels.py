"""Which nodes of a prepared graph ONNX Runtime has kernels for in CUDA, by the list of one release of it.

A node without one would run on the processor: its inputs and outputs would cross between GPU and host in every run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

from storm_edge.export.build.goal import Goal
from storm_edge.plugins.selective_scan import op as selective_scan
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.errors import TargetError

PROVIDER = "CUDAExecutionProvider"
FIRST_OPSET = 20  # of graphs that are prepared
_LIST = Path(__file__).parent / "cuda_kernels.json"


@cache
def published() -> dict[str, Any]:
    """The list: its source, the release that it is of, and kernels by operator."""
    found: dict[str, Any] = json.loads(_LIST.read_text(encoding="utf-8"))
    return found


def without_kernel(model: onnx.ModelProto) -> list[str]:
    """ "Softplus of bfloat16" for every kind of node that only the processor has a kernel for.

    The operators of this project are left out: their kernels are in libstorm_onnxruntime.so.
    """
    types = _types(model)
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    found = [
        _words(node, types)
        for node in model.graph.node
        if node.domain != selective_scan.DOMAIN and not _has_kernel(node, types, opsets.get(node.domain, 1))
    ]
    return sorted(set(found))


def require_kernels(bundle: Bundle, goal: Goal, graphs: dict[Stage, str]) -> None:
    """Raise TargetError naming the nodes of prepared graphs that would run on the processor."""
    for stage, path in graphs.items():
        lacking = without_kernel(onnx.load(bundle.located(path), load_external_data=False))
        if lacking:
            precision = "--llm-precision" if stage == "decoder" else "--precision"
            raise TargetError(
                f"ONNX Runtime {published()['version']} has no CUDA kernels for {stage}'s {'; '.join(lacking)}: choose"
                f" another {precision}, or another target than {goal.where.name}."
            )


def _words(node: onnx.NodeProto, types: dict[str, str]) -> str:
    name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    return f"{name} of {', '.join(dict.fromkeys(types[x] for x in node.input if x in types)) or 'nothing'}"


def _has_kernel(node: onnx.NodeProto, types: dict[str, str], opset: int) -> bool:
    name = f"{node.domain}::{node.op_type}" if node.domain else node.op_type
    if name == "Constant":  # folded before anything runs
        return True
    version = _since(node, opset)
    for kernel in published()["kernels"].get(name, []):
        if kernel["first"] <= version and (kernel["last"] is None or version <= kernel["last"]):
            taken = kernel["types"]
            if all(kind in taken[constraint] for constraint, kind in _given(node, types, version, set(taken))):
                return True
    return False


def _given(
    node: onnx.NodeProto, types: dict[str, str], version: int, constraints: set[str]
) -> Iterator[tuple[str, str]]:
    """The constraints that a node's inputs and outputs are of, with their types."""
    if not onnx.defs.has(node.op_type, node.domain):  # ONNX Runtime's own: the first input is of the first constraint
        yield "T" if "T" in constraints else "T1", types.get(node.input[0], "")
        return
    schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    for names, formal in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for i, value in enumerate(names):
            constraint = formal[min(i, len(formal) - 1)].type_str
            if constraint in constraints and value in types:
                yield constraint, types[value]


def _since(node: onnx.NodeProto, opset: int) -> int:
    """The opset in which an operator got the form that it has in `opset`."""
    if not onnx.defs.has(node.op_type, node.domain):
        return opset if node.domain else 1
    version: int = onnx.defs.get_schema(node.op_type, opset, node.domain).since_version
    return version


def _types(model: onnx.ModelProto) -> dict[str, str]:
    """The type of every value that has one; what ONNX Runtime's own operators give is of their first input's type."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = (*graph.input, *graph.value_info, *graph.output)
    kinds = {value.name: value.type.tensor_type.elem_type for value in values}
    kinds |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    for node in model.graph.node:
        schema = onnx.defs.get_schema(node.op_type, domain="") if onnx.defs.has(node.op_type, node.domain) else None
        for value in node.output:
            if kinds.get(value, 0) == TensorProto.UNDEFINED and node.input:
                kinds[value] = kinds.get(_typed_like(node, schema), TensorProto.UNDEFINED)
    return {value: TensorProto.DataType.Name(kind).lower() for value, kind in kinds.items() if kind}


def _typed_like(node: onnx.NodeProto, schema: Any) -> str:
    """The input that has the type of a node's output."""
    if schema is None:
        return str(node.input[0])
    wanted = schema.outputs[0].type_str
    return next((str(x) for x, formal in zip(node.input, schema.inputs, strict=False) if formal.type_str == wanted), "")

"""What a graph file must be before anything runs it: the contract's inputs and outputs, weights that lie where they
should, and no operator by which a file from somebody else could compute without end.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from google.protobuf.message import DecodeError

from storm_edge.plugins.causal_conv1d import op as causal_conv1d
from storm_edge.plugins.selective_scan import op as selective_scan
from storm_edge.runtime.bundle.contract import TensorSpec
from storm_edge.runtime.bundle.door import open_file, size_of
from storm_edge.runtime.errors import BundleError, StormError

GRAPH_BYTES = 64 << 20  # weights lie beside the graph; storm-7b's largest graph has under 1 MiB
_EXTERNAL = 1  # TensorProto.DataLocation
# TensorProto.DataType -> bits of an element, and what we call it.
_BITS = dict.fromkeys((2, 3, 9, 17), 8) | dict.fromkeys((4, 5, 10, 16), 16) | dict.fromkeys((1, 6, 12), 32)
_BITS |= dict.fromkeys((7, 11, 13), 64) | dict.fromkeys((21, 22), 4)
_NAMES = {1: "float32", 2: "uint8", 3: "int8", 6: "int32", 7: "int64", 9: "bool", 10: "float16", 16: "bfloat16"}
_FLOATS = frozenset({"float32", "float16", "bfloat16"})
_FUNCTION_ONLY = frozenset({"Scan"})  # the body of the selective scan

# What exported and prepared graphs are made of. No Loop and no If, nothing that draws numbers, reads files or text.
OPERATORS: Mapping[str, frozenset[str]] = {
    "": frozenset(
        "Abs Add And Attention AveragePool Cast CastLike Clip Concat Constant ConstantOfShape Conv Cos"  # noqa: SIM905
        " DequantizeLinear Div Equal Erf Exp Expand Flatten Gather Gelu Greater GreaterOrEqual Identity"
        " LayerNormalization Less LessOrEqual Log MatMul Max Min Mul Neg Not Or Pad Pow QuantizeLinear Range Reciprocal"
        " ReduceMax ReduceMean ReduceSum Reshape Resize RMSNormalization RotaryEmbedding Scan Shape Sigmoid Sin Slice"
        " Softmax Softplus Split Sqrt Squeeze Sub Tanh TensorScatter Tile Transpose Unsqueeze Where".split()
    ),
    "com.microsoft": frozenset({"MatMulNBits", "GroupQueryAttention"}),
    "storm": frozenset({"SelectiveScan", "CausalConv1d"}),
}
_SCHEMAS = {op.NAME: op.SCHEMA for op in (selective_scan, causal_conv1d)}
# ONNX Runtime's own, in the domain of ONNX.
CONTRIBUTED = frozenset({"SimplifiedLayerNormalization"})


@dataclass(frozen=True)
class GraphRules:
    """What a graph must keep to: its values' names, ranks and types, and the one data file it may refer to.

    `literal` asks for the very types; else one floating type may stand for another, as in graphs made for an engine.
    """

    inputs: list[TensorSpec]
    outputs: list[TensorSpec]
    data: str | None
    literal: bool


def check_graph(root: Path, name: str, rules: GraphRules, error: type[StormError] = BundleError) -> Path:
    """The path of a graph of the bundle at `root` that keeps to the rules; raises `error` saying what is wrong."""
    path = root / name
    with open_file(root, name) as file:
        size = os.fstat(file.fileno()).st_size
        if size > GRAPH_BYTES:
            _refuse(path, f"it has {size >> 20} MiB, and graphs end at {GRAPH_BYTES >> 20}", error)
        text = file.read(GRAPH_BYTES)
    from storm_edge.runtime.bundle.onnx_messages import Model  # protobuf, which no other step needs

    try:
        model = Model.FromString(text)
    except (DecodeError, RecursionError) as e:
        raise error(f"{path} is no ONNX graph ({' '.join(str(e).split())}): {_ADVICE}.") from e
    if model.training_info or not model.HasField("graph"):
        _refuse(path, "it has no graph, or training information", error)
    _compare(path, "input", model.graph.input, rules.inputs, rules.literal, error)
    _compare(path, "output", model.graph.output, rules.outputs, rules.literal, error)
    for node, in_function in _nodes(model):
        known = OPERATORS.get("" if node.domain == "ai.onnx" else node.domain, frozenset())
        allowed = node.op_type in known or (not node.domain and node.op_type in CONTRIBUTED)
        if not allowed or (node.op_type in _FUNCTION_ONLY and not in_function):
            _refuse(path, f"no graph of ours has a node {node.domain or 'ai.onnx'}::{node.op_type}, and it does", error)
        if node.domain == "storm" and not in_function:
            schema = _SCHEMAS[node.op_type]
            counts, wanted = (len(node.input), len(node.output)), (len(schema.inputs), len(schema.outputs))
            if counts != wanted or not all(node.input):
                _refuse(path, f"a node {node.op_type} has {counts[0]} inputs and {counts[1]} outputs", error)
    for function in model.functions:
        if function.domain != "storm" or function.name not in OPERATORS["storm"]:
            _refuse(path, f"it defines a function {function.domain}::{function.name}", error)
    data_size = size_of(root, f"{Path(name).parent.as_posix()}/{rules.data}") if rules.data else 0
    for tensor in _tensors(model):
        _check_tensor(path, tensor, rules.data, data_size, error)
    return path


_ADVICE = "do not use it; export or build again, or ask whoever made the bundle"


def _refuse(path: Path, what: str, error: type[StormError]) -> NoReturn:
    raise error(f"{path} is refused, {what}: {_ADVICE}.")


def _compare(
    path: Path, kind: str, found: Any, expected: list[TensorSpec], literal: bool, error: type[StormError]
) -> None:
    """Names in any order; sizes that both fix must agree."""
    values = {value.name: value.type.tensor_type for value in found}
    wanted = {spec.name: spec for spec in expected}
    for name in sorted({*values, *wanted}):
        if name not in wanted:
            _refuse(path, f"its {kind} {name!r} is none of the contract's", error)
        if name not in values:
            _refuse(path, f"it has no {kind} {name!r}", error)
        spec, value = wanted[name], values[name]
        dtype = _NAMES.get(value.elem_type, f"type {value.elem_type}")
        dims = [d.dim_value if d.HasField("dim_value") else None for d in value.shape.dim]
        sizes_fit = len(dims) == len(spec.shape) and all(
            a is None or not isinstance(b, int) or a == b for a, b in zip(dims, spec.shape, strict=True)
        )
        dtype_fits = dtype == spec.dtype or (not literal and {dtype, spec.dtype} <= _FLOATS)
        if not sizes_fit or not dtype_fits:
            was = ["?" if d is None else d for d in dims]
            _refuse(path, f"its {kind} {name!r} is {dtype} {was} instead of {spec.dtype} {spec.shape}", error)


def _nodes(model: Any) -> Iterator[tuple[Any, bool]]:
    """Every node, also of graphs in attributes, and whether it belongs to a function."""
    waiting = [(node, False) for node in model.graph.node]
    waiting += [(node, True) for function in model.functions for node in function.node]
    while waiting:
        node, in_function = waiting.pop()
        yield node, in_function
        for attribute in node.attribute:
            inner = [attribute.g] if attribute.HasField("g") else []
            waiting += [(n, in_function) for graph in (*inner, *attribute.graphs) for n in graph.node]


def _tensors(model: Any) -> Iterator[Any]:
    """Every tensor of the file, whether anything uses it or not."""
    graphs = [model.graph]
    attributes = [a for function in model.functions for a in function.attributes]
    for node, _ in _nodes(model):
        attributes += node.attribute
    for attribute in attributes:
        graphs += [*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs]
        yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)
        one = [attribute.sparse_tensor] if attribute.HasField("sparse_tensor") else []
        for tensor in (*one, *attribute.sparse_tensors):
            yield from (tensor.values, tensor.indices)
    for graph in graphs:
        yield from graph.initializer
        for tensor in graph.sparse_initializer:
            yield from (tensor.values, tensor.indices)


def _check_tensor(path: Path, tensor: Any, data: str | None, data_size: int, error: type[StormError]) -> None:
    """Type and dims make sense, and values outside the graph lie within its data file."""
    name, bits = tensor.name, _BITS.get(tensor.data_type)
    if bits is None or any(d < 0 for d in tensor.dims):
        _refuse(path, f"tensor {name!r} has type {tensor.data_type} and dims {list(tensor.dims)[:8]}", error)
    if tensor.data_location != _EXTERNAL and not tensor.external_data:
        return
    where = {entry.key: entry.value for entry in tensor.external_data}
    if where.get("location") != data:
        _refuse(path, f"the values of {name!r} lie in {where.get('location')!r}, not in its data file {data!r}", error)
    elements = 1
    for d in tensor.dims:
        elements *= d  # no overflow in Python
    needed = (elements * bits + 7) // 8
    numbers = [where.get("offset", "0"), where.get("length", str(needed))]
    if not all(n.isascii() and n.isdigit() and len(n) < 20 for n in numbers):
        _refuse(path, f"the values of {name!r} have offset and length {numbers}", error)
    offset, length = map(int, numbers)
    if length != needed or offset + length > data_size:
        where_to = f"{length} bytes from {offset} of {data_size}, for {list(tensor.dims)[:8]} of {bits} bits"
        _refuse(path, f"the values of {name!r} are {where_to}", error)

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from storm_edge.runtime.bundle.contract import TensorSpec
from storm_edge.runtime.bundle.graphs import GraphRules, check_graph
from storm_edge.runtime.errors import BundleError

X = TensorSpec(name="x", dtype="float32", shape=[1, "n"])
Y = TensorSpec(name="y", dtype="float32", shape=[1, "n"])
RULES = GraphRules([X], [Y], "g.data", literal=True)


def graph(nodes: list[onnx.NodeProto] | None = None, tensors: list[TensorProto] | None = None) -> onnx.ModelProto:
    """x float32 [1, n] -> y of the same, whose weight float32 [2] lies in g.data."""
    weight = external("w", TensorProto.FLOAT, [2], location="g.data", offset="4", length="8")
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, "n"]) for name in "xy"]
    nodes = nodes or [helper.make_node("Mul", ["x", "w"], ["y"])]
    return helper.make_model(helper.make_graph(nodes, "g", values[:1], values[1:], [weight, *(tensors or [])]))


def external(name: str, kind: int, dims: list[int], **where: str) -> TensorProto:
    tensor = TensorProto(name=name, data_type=kind, data_location=TensorProto.EXTERNAL)
    tensor.dims.extend(dims)
    for key, value in where.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def check(folder: Path, model: onnx.ModelProto, rules: GraphRules = RULES) -> Path:
    (folder / "graphs").mkdir(exist_ok=True)
    (folder / "graphs" / "g.data").write_bytes(bytes(12))
    (folder / "graphs" / "g.onnx").write_bytes(model.SerializeToString())
    return check_graph(folder, "graphs/g.onnx", rules)


def test_a_graph_that_keeps_to_the_contract_is_taken(tmp_path: Path) -> None:
    assert check(tmp_path, graph()) == tmp_path / "graphs" / "g.onnx"


WHERE: list[dict[str, str]] = [
    {"location": "../secret", "offset": "0", "length": "8"},
    {"location": "/etc/passwd", "offset": "0", "length": "8"},
    {"location": "other.data", "offset": "0", "length": "8"},
    {"location": "", "offset": "0", "length": "8"},
    {"offset": "0", "length": "8"},
    {"location": "g.data", "offset": "8", "length": "8"},
    {"location": "g.data", "offset": "-4", "length": "8"},
    {"location": "g.data", "offset": "0", "length": "4"},
    {"location": "g.data", "offset": "0", "length": "12"},
    {"location": "g.data", "offset": "9" * 30, "length": "8"},
    {"location": "g.data", "offset": "x", "length": "8"},
    {"location": "g.data", "offset": "٣", "length": "8"},
]


@pytest.mark.parametrize("where", WHERE, ids=str)
@pytest.mark.parametrize("place", ["initializer", "constant", "branch", "function", "sparse"])
def test_values_outside_the_graphs_own_data_file_are_refused(tmp_path: Path, where: dict[str, str], place: str) -> None:
    tensor = external("z", TensorProto.FLOAT, [2], **where)
    model = graph(tensors=[tensor] if place == "initializer" else [])
    constant = helper.make_node("Constant", [], ["c"], value=tensor)
    if place == "constant":
        model.graph.node.insert(0, constant)
    elif place == "branch":
        inner = helper.make_graph([], "inner", [], [], [tensor])
        model.graph.node[0].attribute.append(helper.make_attribute("then_branch", inner))
    elif place == "function":
        made = helper.make_function("storm", "SelectiveScan", [], [], [constant], [helper.make_opsetid("", 20)])
        model.functions.append(made)
    elif place == "sparse":
        sparse = onnx.SparseTensorProto(values=tensor, dims=[4])
        sparse.indices.CopyFrom(numpy_helper.from_array(np.array([0, 1]), "i"))
        model.graph.sparse_initializer.append(sparse)
    with pytest.raises(BundleError, match="is refused, the values of 'z'"):
        check(tmp_path, model)


@pytest.mark.parametrize("dims", [[-1], [2**62, 2**62], [3]], ids=str)
def test_dims_that_do_not_fit_the_bytes_are_refused(tmp_path: Path, dims: list[int]) -> None:
    tensor = external("z", TensorProto.FLOAT, dims, location="g.data", offset="0", length="8")
    with pytest.raises(BundleError, match="'z'"):
        check(tmp_path, graph(tensors=[tensor]))


@pytest.mark.parametrize("kind", [0, 8, 14, 99])
def test_types_without_a_size_are_refused(tmp_path: Path, kind: int) -> None:
    with pytest.raises(BundleError, match=f"'z' has type {kind}"):
        check(tmp_path, graph(tensors=[TensorProto(name="z", data_type=kind)]))


OPERATORS = [("", "Loop"), ("", "If"), ("", "Scan"), ("", "RandomNormal"), ("", "ImageDecoder"), ("evil", "Mul")]


@pytest.mark.parametrize(("domain", "operator"), [*OPERATORS, ("com.microsoft", "Tokenizer"), ("storm", "Other")])
def test_operators_that_no_graph_of_ours_has_are_refused(tmp_path: Path, domain: str, operator: str) -> None:
    nodes = [helper.make_node(operator, ["x", "w"], ["y"], domain=domain)]
    with pytest.raises(BundleError, match=f"has a node .*::{operator}"):
        check(tmp_path, graph(nodes))


def test_a_loop_inside_a_function_is_refused_and_a_scan_taken(tmp_path: Path) -> None:
    model = graph()
    for operator in ("Scan", "Loop"):
        nodes = [helper.make_node(operator, [], [])]
        model.functions.append(
            helper.make_function("storm", "SelectiveScan", [], [], nodes, [helper.make_opsetid("", 20)])
        )
        if operator == "Scan":
            check(tmp_path, model)
    with pytest.raises(BundleError, match=r"has a node ai\.onnx::Loop"):
        check(tmp_path, model)


def changed_dtype(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def changed_rank(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim.add(dim_value=1)


def changed_size(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[0].dim_value = 2


def renamed(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "other"


def one_more(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


@pytest.mark.parametrize("change", [changed_dtype, changed_rank, changed_size, renamed, one_more])
def test_inputs_and_outputs_are_the_contracts(tmp_path: Path, change: Callable[[Any], None]) -> None:
    model = graph()
    change(model)
    with pytest.raises(BundleError, match=r"is refused, its? .*(input|output)"):
        check(tmp_path, model)


def test_a_graph_made_for_an_engine_may_have_another_floating_type(tmp_path: Path) -> None:
    model = graph()
    changed_dtype(model)
    check(tmp_path, model, GraphRules([X], [Y], "g.data", literal=False))


@pytest.mark.parametrize("content", [b"", b"\xff" * 100, b"\x3a" * 50_000])
def test_what_is_no_graph_is_one_line(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "g.onnx").write_bytes(content)
    with pytest.raises(BundleError, match=r"is no ONNX graph|it has no graph"):
        check_graph(tmp_path, "g.onnx", GraphRules([], [], None, literal=True))

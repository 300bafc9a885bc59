"""The list of CUDA kernels, and what it says of graphs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import onnx
import pytest

from storm_edge.export.build.onnxruntime.kernels import published, require_kernels, without_kernel
from storm_edge.runtime.bundle.graphs import CONTRIBUTED, OPERATORS
from storm_edge.runtime.errors import TargetError
from storm_edge.runtime.machine.targets import target


def graph(kind: str, body: str, opset: int = 24) -> onnx.ModelProto:
    head = f'<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>'
    return onnx.parser.parse_model(f"{head} g ({kind}[1, 8, 4] x) => ({kind}[1, 8, 4] y) {{ {body} }}")


def test_the_list_is_of_one_release_and_of_our_operators_alone() -> None:
    found = published()
    assert found["version"] in found["source"]
    ours = {*OPERATORS[""], *CONTRIBUTED, *(f"com.microsoft::{name}" for name in OPERATORS["com.microsoft"])}
    assert set(found["kernels"]) <= ours
    for rows in found["kernels"].values():
        for row in rows:
            assert set(row) == {"first", "last", "types"}
            assert row["last"] is None or row["first"] <= row["last"]


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_what_has_kernels_passes(kind: str) -> None:
    body = "a = Softmax(x)  b = Attention(a, a, a)  c = RMSNormalization(b, b)  s = Shape(c)  y = Reshape(c, s)"
    assert without_kernel(graph(kind, body)) == []


def test_what_has_none_is_named_with_its_type_once_and_by_opset() -> None:
    body = "a = Softplus(x)  b = Softplus(a)  y = Sin(b)"
    assert without_kernel(graph("bfloat16", body, 20)) == ["Sin of bfloat16", "Softplus of bfloat16"]
    assert without_kernel(graph("bfloat16", body, 24)) == []
    assert without_kernel(graph("float16", body, 20)) == []


def test_onnx_runtimes_own_operators_are_known_by_their_first_input() -> None:
    body = "k = SimplifiedLayerNormalization(x, x)  y = com.microsoft.Gelu(k)"
    assert without_kernel(graph("float16", body)) == ["com.microsoft::Gelu of float16"]
    nbits = "y = com.microsoft.MatMulNBits <K = 4, N = 4, bits = 4, block_size = 16> (x, x, x)"
    assert without_kernel(graph("float16", nbits)) == []
    assert without_kernel(graph("double", nbits)) != []


def test_a_graph_without_kernels_is_refused_with_what_to_do(tmp_path: Any) -> None:
    onnx.save(graph("bfloat16", "y = Softplus(x)", 20), tmp_path / "g.onnx")
    bundle: Any = SimpleNamespace(located=lambda name: tmp_path / name)
    goal: Any = SimpleNamespace(where=target("cuda"))
    with pytest.raises(
        TargetError, match=r"no CUDA kernels for temporal's Softplus of bfloat16: choose another --prec"
    ):
        require_kernels(bundle, goal, {"temporal": "g.onnx"})

"""The forms in which engines take int4: what lets TensorRT fuse its product, and what makes the CPU's fast."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto

from storm_edge.export.build.build import build
from storm_edge.export.build.goal import judge
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.prepare import prepare
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.machine.targets import target

Copy = Callable[[Path], Path]
LAYERS, LINEAR = 4, 7  # of the decoder, and the linear ones in each


def prepared_decoder(root: Path, where: str, tensorrt: str | None = None) -> onnx.GraphProto:
    bundle = Bundle.open(root)
    stages = {} if where == "cpu" else {"stages": ("decoder",)}
    goal = judge(bundle, target(where), BuildOptions(llm_precision="int4", tensorrt=tensorrt, **stages), probe())
    if where == "cpu":
        name = build(bundle, target(where), goal.options).graphs["decoder"]
    else:
        name = prepare(bundle, goal)[0]["decoder"]
    return onnx.load(bundle.path(name), load_external_data=False).graph


@pytest.mark.parametrize(("where", "tensorrt"), [("rtx", None), ("orin", "10.16"), ("h100", "10.16")])
def test_tensorrt_gets_packed_constants_whose_scales_have_the_activations_type(
    where: str, tensorrt: str | None, bundle: Path, copy_of: Copy
) -> None:
    graph = prepared_decoder(copy_of(bundle), where, tensorrt)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    makers = {name: node for node in graph.node for name in node.output}
    readers = [name for node in graph.node for name in node.input]
    (embeds,) = (value for value in graph.input if value.name == "inputs_embeds")
    products = [n for n in graph.node if n.op_type == "MatMul" and n.input[1] in makers]
    layers = [n for n in products if makers[n.input[1]].op_type == "DequantizeLinear"]
    assert len(layers) == LAYERS * LINEAR
    assert [n.input[1] for n in products if n not in layers and "proj" in n.input[1]] == []
    for product in layers:
        undone = makers[product.input[1]]
        attributes = {a.name: a.i for a in undone.attribute}
        assert attributes == {"axis": 0, "block_size": 128}
        integers, scale = (constants[name] for name in undone.input)  # constants, both, and no zero point
        assert integers.data_type == TensorProto.INT4
        assert scale.data_type == embeds.type.tensor_type.elem_type == TensorProto.BFLOAT16
        assert list(scale.dims) == [integers.dims[0] // 128, integers.dims[1]]
        # Nothing stands between weight and product, and no other node wants the wide weight.
        assert readers.count(undone.output[0]) == 1


def test_the_cpu_computes_with_8_bit_activations_and_the_last_positions_logits_alone(
    bundle: Path, copy_of: Copy
) -> None:
    graph = prepared_decoder(copy_of(bundle), "cpu")
    makers = {name: node for node in graph.node for name in node.output}
    nbits = [node for node in graph.node if node.op_type == "MatMulNBits"]
    assert len(nbits) == LAYERS * LINEAR + 1
    assert {a.i for node in nbits for a in node.attribute if a.name == "accuracy_level"} == {4}
    assert sum(any(a.name == "accuracy_level" for a in node.attribute) for node in nbits) == len(nbits)
    assert not any(node.op_type == "MatMul" for node in graph.node)
    (logits,) = (value for value in graph.output if value.name == "logits")
    assert [d.dim_value for d in logits.type.tensor_type.shape.dim[:2]] == [1, 1]
    head = makers[makers["logits"].input[0]]
    assert head in nbits
    norm = makers[head.input[0]]
    assert (norm.op_type, makers[norm.input[0]].op_type) == ("SimplifiedLayerNormalization", "Gather")  # one position


def test_who_builds_int8_for_a_cpu_is_told_that_int4_is_faster(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    made = {
        p: build(opened, target("cpu"), BuildOptions(llm_precision=p, allow_mismatch=True)) for p in ("int8", "int4")
    }
    assert ["int4 is faster" in " ".join(record.notes) for record in made.values()] == [True, False]

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from storm_edge.export.graph_file import Reader, load_model, save_model
from storm_edge.export.passes.lower_attention import lower_attention
from storm_edge.export.passes.narrow import narrow
from storm_edge.export.passes.pin_length import pin_length
from storm_edge.export.passes.widen import widen
from storm_edge.export.trace.dynamo import trace
from storm_edge.runtime.errors import BuildError, UsageError


def float_types(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True)
    values = (*inferred.graph.value_info, *inferred.graph.input, *inferred.graph.output)
    return {v.name: v.type.tensor_type.elem_type for v in values}


@pytest.mark.parametrize("stage", ["vision", "temporal", "decoder"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_narrowed_graph_is_valid_and_its_interface_has_the_type(
    stage: str, dtype: str, bundle: Path, tmp_path: Path
) -> None:
    loaded = load_model(bundle / "graphs" / f"{stage}.onnx")
    readers = dict(loaded.tensors)
    narrow(loaded.model, readers, dtype)  # type: ignore[arg-type]
    save_model(loaded.model, tmp_path / "g.onnx", "g.data", readers)
    onnx.checker.check_model(str(tmp_path / "g.onnx"), full_check=True)
    wanted = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}[dtype]
    floating = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16)
    values = [v for v in (*loaded.model.graph.input, *loaded.model.graph.output)]
    types = {v.name: v.type.tensor_type.elem_type for v in values if v.type.tensor_type.elem_type in floating}
    assert types.pop("logits", TensorProto.FLOAT) == TensorProto.FLOAT
    assert set(types.values()) == {wanted}


def test_what_the_scan_reads_in_fp32_and_the_pixels_stay_fp32(bundle: Path) -> None:
    temporal = load_model(bundle / "graphs" / "temporal.onnx")
    narrow(temporal.model, dict(temporal.tensors), "float16")
    types = {t.name: t.data_type for t in temporal.model.graph.initializer}
    types |= {v.name: v.type.tensor_type.elem_type for v in temporal.model.graph.value_info}
    for node in temporal.model.graph.node:
        if node.op_type == "SelectiveScan":
            assert {types[node.input[i]] for i in (2, 5, 7)} == {TensorProto.FLOAT}
            assert {types[node.input[i]] for i in (0, 1, 3, 4, 6)} == {TensorProto.FLOAT16}
    vision = load_model(bundle / "graphs" / "vision.onnx")
    narrow(vision.model, dict(vision.tensors), "bfloat16")
    conv = next(n for n in vision.model.graph.node if n.op_type == "Conv")
    cast = next(n for n in vision.model.graph.node if conv.input[0] in n.output)
    assert cast.op_type == "Cast"  # straight in front of the convolution, behind the normalisation


def test_narrowing_refuses_weights_that_fp16_cannot_hold() -> None:
    weight = numpy_helper.from_array(np.full((4, 4), 1e6, np.float32), "w")
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [4, 4]) for n in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    with pytest.raises(UsageError, match="w"):
        narrow(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), {}, "float16")


def test_a_norm_of_single_operators_squares_in_fp32() -> None:
    norm = torch.nn.RMSNorm(8, eps=1e-6)
    x = torch.linspace(-900, 1000, 16).reshape(2, 8)  # squares up to 1e6, fp16 ends at 65504
    model = trace(norm, [x], inputs=["x"], outputs=["y"], dynamic_shapes=[{}], opset=20)
    assert "Pow" in [n.op_type for n in model.graph.node]
    readers: dict[str, Reader] = {}
    narrow(model, readers, "float16")
    onnx.checker.check_model(model, full_check=True)
    (y,) = ReferenceEvaluator(model).run(None, {"x": x.numpy().astype(np.float16)})
    assert y.dtype == np.float16
    np.testing.assert_allclose(y, norm(x).detach().numpy(), rtol=2e-3)


@pytest.mark.parametrize("stage", ["vision", "temporal"])
def test_a_narrowed_graph_widened_again_runs_like_the_original(stage: str, bundle: Path, tmp_path: Path) -> None:
    path = bundle / "graphs" / f"{stage}.onnx"
    loaded = load_model(path)
    readers = dict(loaded.tensors)
    narrow(loaded.model, readers, "bfloat16")
    widen(loaded.model, readers)
    save_model(loaded.model, tmp_path / "g.onnx", "g.data", readers)
    rng = np.random.default_rng(0)
    if stage == "vision":
        inputs = {"frames": rng.integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)}
    else:
        inputs = {"tokens": rng.normal(size=(1, 4, 16, 128)).astype(np.float32)}
    (a,), (b,) = (onnxruntime.InferenceSession(p).run(None, inputs) for p in (path, tmp_path / "g.onnx"))
    assert 0 < np.abs(a - b).max() < 0.05 * np.abs(a).max()  # bf16 weights, fp32 arithmetic


def attention_model(dtype: int, **attributes: float) -> onnx.ModelProto:
    shape = [2, 3, 5, 8]  # (batch, heads, length, head)
    q, k, v, y = (helper.make_tensor_value_info(n, dtype, shape) for n in "qkvy")
    node = helper.make_node("Attention", ["q", "k", "v"], ["y"], scale=0.3, **attributes)
    graph = helper.make_graph([node], "g", [q, k, v], [y], value_info=[y])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)


@pytest.mark.parametrize("wide_softmax", [False, True])
@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16])
def test_lowered_attention_equals_the_operator_as_onnx_itself_evaluates_it(dtype: int, wide_softmax: bool) -> None:
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    rng = np.random.default_rng(0)
    inputs = {n: rng.normal(size=(2, 3, 5, 8)).astype(kind) for n in "qkv"}
    (expected,) = ReferenceEvaluator(attention_model(dtype)).run(None, inputs)
    model = attention_model(dtype)
    lower_attention(model, wide_softmax)
    onnx.checker.check_model(model, full_check=True)
    softmax = ["Cast", "Softmax", "Cast"] if wide_softmax and kind == np.float16 else ["Softmax"]
    assert [n.op_type for n in model.graph.node] == ["Mul", "Transpose", "MatMul", *softmax, "MatMul"]
    assert (model.opset_import[0].version, model.ir_version) == (20, 10)
    (ours,) = ReferenceEvaluator(model).run(None, inputs)
    np.testing.assert_allclose(ours, expected, rtol=2e-3, atol=2e-3 if kind == np.float16 else 1e-6)


def test_attention_with_a_mask_or_causal_is_not_lowered_wrongly() -> None:
    model = attention_model(TensorProto.FLOAT, is_causal=1)
    with pytest.raises(ValueError, match="not a plain attention"):
        lower_attention(model)


def test_pinning_fixes_the_axis_everywhere_and_no_other(bundle: Path) -> None:
    model = load_model(bundle / "graphs" / "decoder.onnx").model
    pin_length(model, "length", 2048)
    shapes = {
        v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim]
        for v in (*model.graph.input, *model.graph.output)
    }
    assert shapes["past_key_0"] == shapes["present_value_3"] == [1, 2, 2048, 32]
    assert shapes["inputs_embeds"] == [1, "sequence", 128]


def test_a_graph_whose_shapes_contradict_each_other_is_refused_in_one_line() -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in "xy")
    weight = numpy_helper.from_array(np.ones((3, 3), np.float32), "w")
    described = helper.make_tensor_value_info("w", TensorProto.FLOAT, [4, 3])
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = helper.make_model(helper.make_graph(nodes, "g", [x], [y], [weight], value_info=[described]))
    with pytest.raises(BuildError, match="the graph contradicts itself"):
        narrow(model, {}, "float16")

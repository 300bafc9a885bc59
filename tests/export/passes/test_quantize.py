from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from storm_edge.export.graph_file import load_model, save_model
from storm_edge.export.passes.lower_attention import lower_attention
from storm_edge.export.passes.narrow import narrow
from storm_edge.export.passes.quantize import activation_scale, linear_layers, quantize
from storm_edge.runtime.bundle.calibration import Range, find_calibration
from storm_edge.runtime.bundle.manifest import Bundle

# Activations that linear layers read, and linear layers: q, k and v read one; the last of vision is the projector.
COUNTS = {"vision": (4 * 4 + 1, 4 * 6 + 1), "temporal": (2 * 2, 2 * 3)}


def small_model(weight: np.ndarray, dtype: int = TensorProto.FLOAT) -> onnx.ModelProto:
    kind = helper.tensor_dtype_to_np_dtype(dtype)
    x, y = (helper.make_tensor_value_info(n, dtype, [None, size]) for n, size in zip("xy", weight.shape, strict=True))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")],
        "g",
        [x],
        [y],
        [numpy_helper.from_array(weight.astype(kind), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


@pytest.mark.parametrize("stage", ["vision", "temporal"])
@pytest.mark.parametrize(("dtype", "scheme"), [("float32", "uint8"), ("float16", "int8"), ("float16", "fp8")])
@pytest.mark.parametrize("lowered", [False, True])
def test_q_and_dq_stand_only_in_front_of_linear_layers(
    stage: str, dtype: str, scheme: str, lowered: bool, calibrated: Path, tmp_path: Path
) -> None:
    bundle = Bundle.open(calibrated)
    calibration = find_calibration(bundle, None)
    loaded = load_model(calibrated / "graphs" / f"{stage}.onnx")
    model, readers = loaded.model, dict(loaded.tensors)
    if dtype != "float32":
        narrow(model, readers, dtype)  # type: ignore[arg-type]
    before = Counter(n.op_type for n in model.graph.node)
    quantize(model, readers, calibration.ranges[stage], calibration.chosen(stage, scheme), scheme)  # type: ignore[index,arg-type]
    after = Counter(n.op_type for n in model.graph.node)
    activations, weights = COUNTS[stage]
    assert after - before == Counter(QuantizeLinear=activations, DequantizeLinear=activations + weights)
    dequantized = {n.output[0]: n for n in model.graph.node if n.op_type == "DequantizeLinear"}
    for node in model.graph.node:
        read = [name for name in node.input if name in dequantized]
        assert not read or (node.op_type == "MatMul" and len(read) == 2)
    if lowered and stage == "vision":
        lower_attention(model)
    save_model(model, tmp_path / "g.onnx", "g.data", readers)
    onnx.checker.check_model(str(tmp_path / "g.onnx"), full_check=True)


def test_what_steers_the_scan_is_no_layer_to_quantize(bundle: Path) -> None:
    model = load_model(bundle / "graphs" / "temporal.onnx").model
    found = linear_layers(model)
    assert [layer.shape for layer in found] == 2 * [(128, 256), (128, 256), (256, 128)]  # in_proj's halves and out_proj
    assert Counter(n.op_type for n in model.graph.node)["MatMul"] == 14


def test_only_chosen_layers_are_quantized_and_a_shared_weight_stays_for_the_others(calibrated: Path) -> None:
    calibration = find_calibration(Bundle.open(calibrated), None)
    loaded = load_model(calibrated / "graphs" / "vision.onnx")
    layers = linear_layers(loaded.model)
    readers = dict(loaded.tensors)
    assert quantize(loaded.model, readers, calibration.ranges["vision"], {layers[0].node}, "int8") == [layers[0].node]
    counts = Counter(n.op_type for n in loaded.model.graph.node)
    assert (counts["QuantizeLinear"], counts["DequantizeLinear"]) == (1, 2)
    names = {t.name for t in loaded.model.graph.initializer}
    assert layers[0].weight not in names
    assert {layer.weight for layer in layers[1:]} <= names
    with pytest.raises(ValueError, match="nothing is no linear layer"):
        quantize(loaded.model, readers, {}, {"nothing"}, "int8")


@pytest.mark.parametrize("dtype", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16])
@pytest.mark.parametrize("scheme", ["int8", "fp8"])
def test_weights_are_within_half_a_step_whatever_the_size_of_a_channel(dtype: int, scheme: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(64, 6)) * np.array([0.01, 0.1, 1, 10, 100, 0])
    model, readers = small_model(weight, dtype), {}
    stored = numpy_helper.to_array(model.graph.initializer[0]).astype(np.float32)
    quantize(model, readers, {"x": Range(-1, 1, 1, 1)}, {"layer"}, scheme)  # type: ignore[arg-type]
    save_model(model, tmp_path / "g.onnx", "g.data", readers)
    tensors = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "g.onnx").graph.initializer}
    scale = tensors["w.scale"].astype(np.float32)
    back = tensors["w.quantized"].astype(np.float32) * scale
    assert (tensors["w.zero"].astype(np.float32) == 0).all()
    if scheme == "int8":
        assert (np.abs(back - stored) <= 0.51 * scale + 1e-2 * np.abs(stored)).all()
    else:  # half a step of three bits, or of the smallest number there is
        assert (np.abs(back - stored) <= np.maximum(0.07 * np.abs(stored), scale * 2.0**-9)).all()


def test_scales_hold_zero_exactly_and_cover_the_range() -> None:
    for low, high in ((-0.17, 9.0), (-5.0, 5.0), (0.5, 3.0), (-3.0, -1.0)):
        scale, zero = activation_scale(Range(low, high, 1, 1), "uint8")
        ends = (np.array([0, 255]) - float(zero)) * scale
        assert ends[0] <= min(low, 0) + 0.51 * scale
        assert ends[1] >= max(high, 0) - 0.51 * scale
    assert activation_scale(Range(-9, 9, 2.54, 7), "int8")[0] == pytest.approx(0.02)
    assert activation_scale(Range(-9, 9, 2.54, 448), "fp8")[0] == 1


@pytest.mark.parametrize("scheme", ["int8", "uint8"])
def test_the_quantized_product_is_what_integer_arithmetic_gives(scheme: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight, x = rng.normal(size=(32, 8)).astype(np.float32), rng.uniform(-1, 3, (5, 32)).astype(np.float32)
    span = Range(-1, 3, 3, 3)
    model, readers = small_model(weight), {}
    quantize(model, readers, {"x": span}, {"layer"}, scheme)  # type: ignore[arg-type]
    save_model(model, tmp_path / "g.onnx", "g.data", readers)
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")
    (ours,) = onnxruntime.InferenceSession(tmp_path / "g.onnx", options).run(None, {"x": x})
    scale, zero = activation_scale(span, scheme)  # type: ignore[arg-type]
    low, high = (0, 255) if scheme == "uint8" else (-128, 127)
    a = (np.rint(x / np.float32(scale)) + float(zero)).clip(low, high) - float(zero)
    steps = np.abs(weight).max(axis=0) / 127
    expected = (a @ np.rint(weight / steps)) * scale * steps
    np.testing.assert_allclose(ours, expected, rtol=1e-4, atol=1e-4)

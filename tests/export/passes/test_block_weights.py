from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from storm_edge.export.graph_file import Reader, load_model, save_model
from storm_edge.export.passes.block_weights import block_weights
from storm_edge.export.passes.int4_blocks import block_integers, block_scales
from storm_edge.runtime.bundle.manifest import Bundle


def rounded(weight: np.ndarray, block: int) -> np.ndarray:
    scales = block_scales(weight, block, 4)
    return block_integers(weight, scales, block, 4) * scales.repeat(block, axis=0)


@pytest.mark.parametrize("kind", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_int4_weights_are_within_half_a_step_of_the_weight(kind: type, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    weight = (rng.normal(size=(64, 6)) * rng.uniform(0.1, 10, 6)).astype(kind)
    weight[:32, 0] = 0
    dtype = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    x = helper.make_tensor_value_info("x", dtype, [2, 64])
    y = helper.make_tensor_value_info("y", dtype, [2, 6])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [numpy_helper.from_array(weight, "w")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)
    readers: dict[str, Reader] = {}
    assert block_weights(model, readers, 4, 32) == ["w"]
    save_model(model, tmp_path / "g.onnx", "g.data", readers)
    onnx.checker.check_model(str(tmp_path / "g.onnx"), full_check=True)
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "g.onnx").graph.initializer}
    scale = np.repeat(stored["w.scale"].astype(np.float32), 32, axis=0)
    integers = stored["w.int4"].astype(np.float32)
    error = np.abs(integers * scale - weight.astype(np.float32))
    inside = (integers > -8) & (integers < 7)  # at the ends what lies beyond is cut off
    assert (error[inside] <= 0.501 * scale[inside]).all()
    assert (error <= 2.05 * scale).all()
    assert (integers.min(), integers.max()) == (-8, 7)
    assert (scale > 0).all()  # TensorRT takes no others


def test_scales_are_the_same_numbers_in_every_floating_type() -> None:
    weight = np.random.default_rng(0).normal(size=(256, 8), scale=0.02).astype(np.float32)
    scales = block_scales(weight, 128, 4)
    for kind in (ml_dtypes.bfloat16, np.float16):
        assert np.array_equal(scales.astype(kind).astype(np.float32), scales)


def test_blocks_of_16_levels_lose_less_than_15_levels_or_the_whole_range_do() -> None:
    weight = np.random.default_rng(0).normal(size=(1024, 64)).astype(np.float32)
    ours = np.square(rounded(weight, 128) - weight).sum()
    for steps, lowest in ((7, -7), (7.5, -8), (8, -8)):
        scale = (np.abs(weight.reshape(8, 128, 64)).max(axis=1) / steps).repeat(128, axis=0)
        theirs = np.square(np.rint(weight / scale).clip(lowest, 7) * scale - weight).sum()
        assert ours < 0.95 * theirs


def test_int4_leaves_what_it_is_told_to_keep_and_what_does_not_divide(bundle: Path) -> None:
    graph = Bundle.open(bundle).path("graphs/decoder.onnx")
    loaded = load_model(graph)
    done = block_weights(loaded.model, dict(loaded.tensors), 4, 128, keep=frozenset({"model.embed_tokens.weight"}))
    assert len(done) == 4 * 7  # 128 and 384 inputs
    assert block_weights(load_model(graph).model, {}, 4, 100) == []


def test_a_weight_that_does_not_divide_has_a_smaller_last_block_where_that_is_allowed(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).normal(size=(40, 3)).astype(np.float32)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, s]) for n, s in (("x", 40), ("y", 3)))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [numpy_helper.from_array(weight, "w")]
    )
    readers: dict[str, Reader] = {}
    assert block_weights(helper.make_model(graph), readers, 8, 32, partial=True) == ["w"]
    scale = readers["w.scale"]()
    assert scale.shape == (2, 3)
    back = readers["w.int8"]() * scale.repeat(32, axis=0)[:40]
    assert np.abs(back - weight).max() <= 0.51 * scale.max()

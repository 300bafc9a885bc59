from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from storm_edge.export.graph_file import load_model, save_model
from storm_edge.export.passes.block_weights import block_weights
from storm_edge.export.passes.nbits_weights import nbits_weights

HEAD = frozenset({"lm_head.weight", "model.embed_tokens.weight"})


def unpacked(integers: np.ndarray, bits: int) -> np.ndarray:
    """[outputs, blocks, block] of what MatMulNBits reads: two to a byte, the first in the low half."""
    if bits == 4:
        integers = np.stack([integers & 15, integers >> 4], axis=-1).reshape(*integers.shape[:2], -1)
    return integers.astype(np.float32) - (1 << (bits - 1))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(("rows", "block"), [(128, 32), (96, 64)])  # 96 inputs fill a block and a half
def test_onnx_runtime_multiplies_by_weights_within_half_a_step(
    bits: int, rows: int, block: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(rows, 6)).astype(np.float32) * np.array([0.01, 1, 100, 1, 1, 0], np.float32)
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, s]) for n, s in (("x", rows), ("y", 6)))
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")
    graph = helper.make_graph([node], "g", [x], [y], [numpy_helper.from_array(weight, "w")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    readers: dict = {}
    block_weights(model, readers, bits, block, partial=True)  # type: ignore[arg-type]
    assert nbits_weights(model, readers) == ["w"]
    save_model(model, tmp_path / "g.onnx", "g.data", readers)
    stored = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "g.onnx").graph.initializer}
    scale = stored["w.scale"][..., None]
    back = (unpacked(stored[f"w.int{bits}"], bits) * scale).reshape(6, -1)[:, :rows].T
    step = scale.repeat(block, 2).reshape(6, -1)[:, :rows].T
    # Half a step; two at the ends of the range, where 9 steps were better than the 7 there are.
    assert (np.abs(back - weight) <= (2.05 if bits == 4 else 0.51) * step).all()
    assert np.mean(np.abs(back - weight) <= 0.501 * step) > 0.97
    given = rng.normal(size=(5, rows)).astype(np.float32)
    (ours,) = onnxruntime.InferenceSession(tmp_path / "g.onnx").run(None, {"x": given})
    expected = given @ back
    off = np.linalg.norm(ours - expected, axis=0) / np.maximum(np.linalg.norm(expected, axis=0), 0.01)
    assert off.max() < 0.02  # the kernel rounds activations to 8 bits


def test_every_layer_of_the_decoder_is_packed_and_the_head_keeps_8_bits(bundle: Path) -> None:
    loaded = load_model(bundle / "graphs" / "decoder.onnx")
    readers = dict(loaded.tensors)
    weights = block_weights(loaded.model, readers, 4, 32, in_8=HEAD)
    done = nbits_weights(loaded.model, readers)
    depths = Counter(
        next(a.i for a in node.attribute if a.name == "bits")
        for node in loaded.model.graph.node
        if node.op_type == "MatMulNBits"
    )
    assert done == weights
    assert (len(done), depths) == (4 * 7 + 1, Counter({4: 4 * 7, 8: 1}))
    assert not {"MatMul", "DequantizeLinear"} & {node.op_type for node in loaded.model.graph.node}

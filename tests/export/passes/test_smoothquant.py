from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from storm_edge.export.graph_file import Reader, load_model, save_model
from storm_edge.export.passes.narrow import narrow
from storm_edge.export.passes.smoothquant import smoothquant, smoothquant_groups
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession


def random_scales(model: onnx.ModelProto, spread: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        group.output: np.exp(rng.normal(0, spread, group.layers[0].shape[0])).astype(np.float32)
        for group in smoothquant_groups(model)
    }


def test_the_norms_in_front_of_linear_layers_are_found(bundle: Path) -> None:
    counts = {}
    for stage in ("vision", "temporal", "decoder"):
        groups = smoothquant_groups(load_model(bundle / "graphs" / f"{stage}.onnx").model)
        counts[stage] = [len(group.layers) for group in groups]
    # q, k, v of one norm, fc1 or both halves of in_proj of another; q, k, v, gate and up, down, the vocabulary's.
    assert counts == {"vision": 4 * [3, 1], "temporal": [2, 2], "decoder": [*(4 * [3, 2, 1]), 1]}


@pytest.mark.parametrize("stage", ["vision", "temporal"])
def test_the_function_stays_what_it_was_up_to_rounding(stage: str, bundle: Path, tmp_path: Path) -> None:
    source = bundle / "graphs" / f"{stage}.onnx"
    loaded = load_model(source)
    model, readers = loaded.model, dict(loaded.tensors)
    smoothquant(model, readers, random_scales(model, 2.0))
    save_model(model, tmp_path / "g.onnx", "g.data", readers)
    rng = np.random.default_rng(0)
    given = (
        {"frames": rng.integers(0, 256, (3, 64, 64, 3), dtype=np.uint8)}
        if stage == "vision"
        else {"tokens": rng.normal(size=(1, 8, 16, 128)).astype(np.float32)}
    )
    (ours,), (theirs,) = (OnnxRuntimeSession(p, 1).run(**given).values() for p in (tmp_path / "g.onnx", source))
    assert np.abs(ours - theirs).max() < 2e-5 * np.abs(theirs).max()
    names = [t.name for t in model.graph.initializer]
    assert len(names) == len(set(names))


def test_constants_that_others_read_stay_what_they_were_for_those(tmp_path: Path) -> None:
    """The tracer merges equal weights: here two norms share scale and bias, and two layers their weight."""
    rng = np.random.default_rng(0)
    arrays = {"g": rng.normal(size=8), "w": rng.normal(size=(8, 8))}
    nodes = [
        helper.make_node("LayerNormalization", ["x", "g", "g"], ["a"], name="norm0"),
        helper.make_node("MatMul", ["a", "w"], ["b"], name="layer0"),
        helper.make_node("LayerNormalization", ["b", "g", "g"], ["c"], name="norm1"),
        helper.make_node("MatMul", ["c", "w"], ["y"], name="layer1"),
    ]
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [None, 8]) for n in "xy")
    constants = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    given = rng.normal(size=(5, 8)).astype(np.float32)
    save_model(model, tmp_path / "a.onnx", "a.data")
    expected = OnnxRuntimeSession(tmp_path / "a.onnx").run(x=given)["y"]
    readers: dict[str, Reader] = {}
    smoothquant(model, readers, {"c": np.arange(1, 9, dtype=np.float32)})
    save_model(model, tmp_path / "b.onnx", "b.data", readers)
    np.testing.assert_allclose(OnnxRuntimeSession(tmp_path / "b.onnx").run(x=given)["y"], expected, rtol=1e-5)
    assert {t.name for t in model.graph.initializer} == {"g", "w", "g.norm1.1", "g.norm1.2", "w.layer1.1"}


def test_half_precision_is_smoothed_too(bundle: Path, tmp_path: Path) -> None:
    loaded = load_model(bundle / "graphs" / "temporal.onnx")
    model, readers = loaded.model, dict(loaded.tensors)
    narrow(model, readers, "float16")
    smoothquant(model, readers, random_scales(model, 1.0))
    save_model(model, tmp_path / "g.onnx", "g.data", readers)
    onnx.checker.check_model(str(tmp_path / "g.onnx"), full_check=True)
    tokens = np.random.default_rng(0).normal(size=(1, 8, 16, 128)).astype(np.float16)
    ours = OnnxRuntimeSession(tmp_path / "g.onnx", 1).run(tokens=tokens)["visual_tokens"].astype(np.float32)
    source = OnnxRuntimeSession(bundle / "graphs" / "temporal.onnx", 1)
    theirs = source.run(tokens=tokens.astype(np.float32))["visual_tokens"]
    assert np.linalg.norm(ours - theirs) < 5e-3 * np.linalg.norm(theirs)


def test_scales_of_something_else_are_refused(bundle: Path) -> None:
    loaded = load_model(bundle / "graphs" / "temporal.onnx")
    with pytest.raises(ValueError, match="add_57 is nothing that a norm or gate makes for linear layers"):
        smoothquant(loaded.model, dict(loaded.tensors), {"add_57": np.ones(256, np.float32)})
    with pytest.raises(ValueError, match=r"layer_norm has 128 channels, its scales are \[3\]"):
        smoothquant(loaded.model, dict(loaded.tensors), {"layer_norm": np.ones(3, np.float32)})

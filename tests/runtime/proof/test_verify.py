from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.graph_file import save_model
from storm_edge.runtime.bundle.engine import read_engine
from storm_edge.runtime.bundle.manifest import MANIFEST, Bundle, Manifest, describe_file
from storm_edge.runtime.bundle.records import to_json
from storm_edge.runtime.bundle.trust import choose_engine
from storm_edge.runtime.errors import EngineError, ParityError
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.proof.verify import verify

Damage = Callable[[onnx.ModelProto], None]


def damaged(bundle: Path, stage: str, damage: Damage) -> Bundle:
    """Change a stage's graph and write it into the manifest, so that only running the graph can show it."""
    path = bundle / "graphs" / f"{stage}.onnx"
    model = onnx.load(path)
    damage(model)
    save_model(model, path, f"{stage}.data")
    manifest = Manifest.model_validate_json((bundle / MANIFEST).read_text(encoding="utf-8"))
    files = dict(manifest.files)
    for name in (f"graphs/{stage}.onnx", f"graphs/{stage}.data"):
        files[name] = describe_file(bundle / name)
    (bundle / MANIFEST).write_text(to_json(manifest.model_copy(update={"files": files})), encoding="utf-8")
    return Bundle.open(bundle)


def node(model: onnx.ModelProto, op: str, index: int) -> onnx.NodeProto:
    return [n for n in model.graph.node if n.op_type == op][index]


def flip_direction(model: onnx.ModelProto) -> None:
    (attribute,) = (a for a in node(model, "SelectiveScan", 1).attribute if a.name == "reverse")
    attribute.i = 1 - attribute.i


def double_step_bias(model: onnx.ModelProto) -> None:
    name = node(model, "SelectiveScan", 0).input[7]
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), name))


def swap_directions_of_conv(model: onnx.ModelProto) -> None:
    (attribute,) = (a for a in node(model, "CausalConv1d", 0).attribute if a.name == "reverse")
    attribute.i = 1 - attribute.i


def scale_last_norm(model: onnx.ModelProto) -> None:
    name = node(model, "RMSNormalization", -1).input[1]
    (tensor,) = (t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(numpy_helper.from_array(np.float32(1.01) * numpy_helper.to_array(tensor), name))


@pytest.mark.parametrize(
    ("stage", "damage"),
    [
        ("temporal", flip_direction),
        ("temporal", double_step_bias),
        ("temporal", swap_directions_of_conv),
        ("decoder", scale_last_norm),
    ],
)
def test_a_damaged_graph_is_caught_and_not_published(
    stage: str, damage: Damage, bundle: Path, copy_of: Callable[[Path], Path]
) -> None:
    changed = damaged(copy_of(bundle), stage, damage)
    with pytest.raises(ParityError, match=f"first {stage} .*limit"):
        build(changed, target("cpu"), BuildOptions())
    with pytest.raises(EngineError, match="another bundle"):  # the engine of before is not taken for the changed one
        choose_engine(changed, None, ("cpu",))


def test_a_mismatching_engine_can_be_published_on_request_and_is_never_chosen_by_default(
    bundle: Path, copy_of: Callable[[Path], Path]
) -> None:
    changed = damaged(copy_of(bundle), "temporal", flip_direction)
    record = build(changed, target("cpu"), BuildOptions(allow_mismatch=True))
    assert not record.verified
    assert read_engine(changed, "cpu-fp32") == record
    with pytest.raises(EngineError, match="no verified engine"):
        choose_engine(changed, None, ("cpu",))


def test_every_stage_of_storm_mini_agrees_with_pytorch(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    results = verify(opened, read_engine(opened, "cpu-fp32"))
    assert {r.stage for r in results} == {
        "vision",
        "temporal",
        "temporal in chunks",
        "decoder",
        "chain",
        "chain decoder",
    }
    for r in results:
        assert r.passed
        if r.metric == "cosine":
            assert r.value >= 0.999999
        if r.metric == "norm ratio - 1":
            assert r.value <= 1e-4
        if r.metric == "greedy tokens":
            assert r.value == 1.0

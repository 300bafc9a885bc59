from __future__ import annotations

import math
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper

from storm_edge.calibration.calibrate import calibrate
from storm_edge.calibration.smoothquant import SmoothQuant
from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.graph_file import save_model
from storm_edge.runtime.bundle.contract import Stage
from storm_edge.runtime.bundle.engine import EngineRecord, read_engine
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import EngineError, UsageError
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.proof.compare import compare

pytest.importorskip("polygraphy", reason="Polygraphy is not installed: run `make setup`")
Damage = Callable[[onnx.ModelProto], str]


def noise() -> Iterator[NDArray[np.uint8]]:
    """Eight clips [8, 64, 64, 3] of random pixels."""
    for seed in range(8):
        yield np.random.default_rng(seed).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)


def only(model: onnx.ModelProto, op: str, index: int) -> onnx.NodeProto:
    return [n for n in model.graph.node if n.op_type == op][index]


def double_weight(model: onnx.ModelProto, op: str, index: int) -> str:
    node = only(model, op, index)
    (tensor,) = (t for t in model.graph.initializer if t.name == node.input[1])
    tensor.CopyFrom(numpy_helper.from_array(2 * numpy_helper.to_array(tensor), tensor.name))
    return node.name


def flip_direction(model: onnx.ModelProto) -> str:
    node = only(model, "SelectiveScan", 1)
    (attribute,) = (a for a in node.attribute if a.name == "reverse")
    attribute.i = 1 - attribute.i
    return node.name


@pytest.fixture(scope="module")
def prepared(bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, EngineRecord]:
    """A bundle with graphs of fp16 as TensorRT takes them, and their record; do not change it."""
    path = tmp_path_factory.mktemp("prepared") / "bundle"
    shutil.copytree(bundle, path)
    opened = Bundle.open(path)
    options = BuildOptions("fp16", "fp16", tensorrt="10.16", max_length=512, prepare_only=True)
    return path, build(opened, target("h100"), options)


@pytest.mark.parametrize(
    ("stage", "damage"),
    [
        ("vision", lambda model: double_weight(model, "MatMul", 7)),
        ("temporal", flip_direction),
        ("decoder", lambda model: double_weight(model, "RMSNormalization", 3)),
        ("decoder", lambda model: double_weight(model, "MatMul", 10)),
    ],
)
def test_the_node_that_was_damaged_is_named(
    stage: Stage, damage: Damage, prepared: tuple[Path, EngineRecord], copy_of: Callable[[Path], Path]
) -> None:
    source, record = prepared
    opened = Bundle.open(copy_of(source))
    clip = opened.manifest.clips[0]
    assert compare(opened, record, None, stage, clip).first is None
    path = opened.root / record.graphs[stage]
    model = onnx.load(path)
    node = damage(model)
    save_model(model, path, path.with_suffix(".data").name)
    first = compare(opened, record, None, stage, clip).first
    assert first is not None
    assert first.tensor.node == node


@pytest.mark.parametrize("stage", ["vision", "temporal", "decoder"])
def test_every_tensor_of_a_graph_agrees_with_itself(stage: Stage, bundle: Path) -> None:
    opened = Bundle.open(bundle)
    found = compare(opened, read_engine(opened, "cpu-fp32"), None, stage, opened.manifest.clips[-1], every=True)
    assert found.first is None
    assert max(row.figures.error for row in found.rows) == 0
    layers = compare(opened, read_engine(opened, "cpu-fp32"), None, stage, opened.manifest.clips[-1])
    assert 0 < len(layers.rows) < len(found.rows)


def test_what_only_one_graph_has_or_smoothing_scales_is_left_out_and_named(
    calibrated: Path, copy_of: Callable[[Path], Path]
) -> None:
    opened = Bundle.open(copy_of(calibrated))
    calibrate(opened, noise, "smooth", samples=8, budget=math.inf, smoothquant=SmoothQuant())
    plain = build(opened, target("cpu"), BuildOptions("int8", calibration="clips"))
    found = compare(opened, plain, None, "vision", opened.manifest.clips[0])
    assert set(found.left_out.values()) == {f"only in {plain.name}"}
    assert any(name.endswith(".quantized") for name in found.left_out)
    smooth = build(opened, target("cpu"), BuildOptions("int8", calibration="smooth", allow_mismatch=True))
    found = compare(opened, smooth, None, "vision", opened.manifest.clips[0])
    scaled = [name for name, reason in found.left_out.items() if reason == "scaled by smoothing"]
    assert scaled
    assert not {row.tensor.name for row in found.rows} & set(scaled)


def test_two_engines_are_compared_with_each_other(prepared: tuple[Path, EngineRecord]) -> None:
    opened = Bundle.open(prepared[0])
    found = compare(opened, prepared[1], read_engine(opened, "cpu-fp32"), "temporal", opened.manifest.clips[0])
    assert found.first is None
    assert 0 < max(row.figures.error for row in found.rows) < 1e-2


def test_a_number_that_is_none_differs_at_the_node_that_makes_it(
    prepared: tuple[Path, EngineRecord], copy_of: Callable[[Path], Path]
) -> None:
    opened, record = Bundle.open(copy_of(prepared[0])), prepared[1]
    path = opened.root / record.graphs["vision"]
    model = onnx.load(path)
    node = only(model, "MatMul", 3)
    (tensor,) = (t for t in model.graph.initializer if t.name == node.input[1])
    values = numpy_helper.to_array(tensor).copy()
    values[0, 0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    save_model(model, path, path.with_suffix(".data").name)
    first = compare(opened, record, None, "vision", opened.manifest.clips[0]).first
    assert first is not None
    assert first.tensor.node == node.name


def test_without_polygraphy_one_line_names_the_extra(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "polygraphy.comparator", None)
    opened = Bundle.open(bundle)
    with pytest.raises(EngineError, match=r"pip install 'storm-edge\[debug\]'\.$"):
        compare(opened, read_engine(opened, "cpu-fp32"), None, "vision", opened.manifest.clips[0])


def test_a_stage_that_an_engine_has_not_is_refused(prepared: tuple[Path, EngineRecord]) -> None:
    opened, record = Bundle.open(prepared[0]), prepared[1]
    without = record.model_copy(update={"graphs": {"vision": record.graphs["vision"]}})
    with pytest.raises(UsageError, match="has no temporal: choose one of vision"):
        compare(opened, without, None, "temporal", opened.manifest.clips[0])

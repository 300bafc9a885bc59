from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from storm_edge.calibration.analysis import Analysis
from storm_edge.calibration.calibrate import calibrate
from storm_edge.calibration.decoder import fp32_decoder
from storm_edge.calibration.losses import AnswerLoss, Probe, TokenLoss, relative_error
from storm_edge.calibration.sensitivity import Sensitivity, analyze
from storm_edge.calibration.switched import Key, SwitchedEncoders
from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.prepare import prepared_graph
from storm_edge.export.export_bundle import export_bundle
from storm_edge.export.passes.quantize import LinearLayer, quantize_step
from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.bundle.calibration import Calibration, Scheme, find_calibration
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import BuildError
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession

Copy = Callable[[Path], Path]


def clips(number: int = 8) -> Iterator[NDArray[np.uint8]]:
    for i in range(number):
        yield np.random.default_rng(i).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)


@pytest.fixture
def found(calibrated: Path) -> Calibration:
    return find_calibration(Bundle.open(calibrated), None)


@pytest.mark.parametrize("scheme", ["uint8", "int8", "fp8"])
def test_a_switched_graph_computes_what_the_quantized_graph_does_for_any_set_of_layers(
    scheme: Scheme, calibrated: Path, copy_of: Copy
) -> None:
    bundle = Bundle.open(copy_of(calibrated))
    calibration = find_calibration(bundle, None)
    (clip,) = clips(1)
    graph, _ = prepared_graph(bundle, "vision", "all", [quantize_step(calibration, "vision", scheme)])
    with SwitchedEncoders(bundle, calibration.ranges, scheme, threads=1) as encoders:
        fp32 = OnnxRuntimeSession(bundle.path("graphs/vision.onnx"), 1).run(frames=clip)["tokens"]
        np.testing.assert_allclose(encoders.vision(clip, ()), fp32, rtol=0, atol=1e-5 * np.abs(fp32).max())
        every = encoders.vision(clip, encoders.keys)
        expected = OnnxRuntimeSession(bundle.path(graph), 1, literal=True).run(frames=clip)["tokens"]
        # Sums in another order decide differently where a value lies between two steps.
        assert relative_error([every], [expected]) < 0.2 * relative_error([every], [fp32])
        some = encoders.vision(clip, encoders.keys[:3])
        assert 0 < relative_error([some], [fp32]) < relative_error([every], [fp32])
        visual = encoders.temporal(fp32, ())
        assert visual.shape[1:] == (1, *visual.shape[2:])
        assert relative_error([encoders.temporal(fp32, encoders.keys[-1:])], [visual]) > 0


def test_every_layer_has_a_name_of_the_checkpoint(bundle: Path, found: Calibration) -> None:
    with SwitchedEncoders(Bundle.open(bundle), found.ranges, "int8", threads=1) as encoders:
        names = [layer.module for layers in encoders.layers.values() for layer in layers]
    parts = ("in_proj.x", "in_proj.z", "out_proj")
    assert names[-6:] == [f"layers.{i}.mixer.{part}" for i in range(2) for part in parts]
    assert not [name for name in names if name.startswith("node")]


class Made:
    """Encoders and a probe whose losses are known: the squares of what the layers cost add up."""

    def __init__(self, costs: list[float]) -> None:
        self.costs = {("vision", str(i)): cost for i, cost in enumerate(costs)}
        self.layers = {"vision": [LinearLayer(str(i), "", "", (1, 1), f"m.{i}") for i in range(len(costs))]}
        self.keys: list[Key] = [("vision", str(i)) for i in range(len(costs))]
        self.measured: list[int] = []

    def visual(self, keys: list[Key]) -> float:
        self.measured.append(len(keys))
        return float(np.sqrt(sum(self.costs[key] ** 2 for key in keys)))  # type: ignore[index]

    def alone(self, key: Key) -> tuple[float, float]:
        return self.visual([key]), self.costs[key]  # type: ignore[index]


class Figure:
    name, power = "figure", 2

    def __call__(self, visual: float) -> float:
        return visual


def of(costs: list[float], multiplications: list[int], max_loss: float | None) -> Sensitivity:
    made = Made(costs)
    work = dict(zip(made.keys, multiplications, strict=True))
    return analyze(made, made, Figure(), work, clips=1, max_loss=max_loss)  # type: ignore[arg-type]


def test_layers_are_ranked_by_what_a_multiplication_costs() -> None:
    found = of([1.0, 1.0, 2.0], [1, 4, 5], None)
    assert [layer.node for layer in found.layers] == ["1", "2", "0"]
    assert [layer.share for layer in found.layers] == [0.4, 0.5, 0.1]
    assert [point.layers for point in found.curve] == [0, 1, 2, 3]
    assert found.curve[-1].loss == pytest.approx(6**0.5)
    assert (len(found.chosen), found.chosen_share) == (3, pytest.approx(1.0))


def test_the_chosen_set_is_within_the_limit_and_takes_later_layers_that_still_fit() -> None:
    found = of([0.3, 0.1, 0.6, 0.2], [9, 1, 36, 4], 0.4)
    assert found.chosen == {("vision", "0"), ("vision", "1"), ("vision", "3")}
    assert found.chosen_loss == pytest.approx(0.14**0.5)
    assert found.chosen_share == pytest.approx(14 / 50)
    assert of([0.3, 0.1, 0.6, 0.2], [9, 1, 36, 4], 0.61).chosen_loss <= 0.61
    assert len(of([0.3, 0.1], [1, 1], 1.0).chosen) == 2


def test_a_limit_that_no_layer_meets_is_refused_with_the_least_there_is() -> None:
    with pytest.raises(BuildError, match=r"within --max-loss 0.01: the one that costs least costs 0.2"):
        of([0.3, 0.2], [1, 1], 0.01)


def test_an_analysis_leaves_layers_out_of_the_build_and_draws_a_picture(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    folder = calibrate(
        opened, clips, "a", samples=8, threads=1, budget=math.inf, analysis=Analysis(max_loss=0.01, clips=1)
    )
    report = json.loads((folder / "sensitivity.json").read_text())
    assert (report["scheme"], report["clips"], len(report["layers"])) == ("int8", 1, 31)
    assert 0 < report["chosen_loss"] <= 0.01
    assert 0.1 < report["chosen_share"] < 1
    kept = {x["node"] for x in report["layers"] if x["quantize"] and x["stage"] == "vision"}
    calibration = find_calibration(opened, None)
    assert calibration.chosen("vision", "uint8") == kept
    assert len(kept) < 25
    assert (folder / "sensitivity.png").read_bytes().startswith(b"\x89PNG")
    record = build(opened, target("cpu"), BuildOptions("int8", threads=1))
    nodes = onnx.load(opened.path(record.graphs["vision"]), load_external_data=False).graph.node
    quantized = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    assert sum(node.op_type == "MatMul" and set(node.input) <= quantized for node in nodes) == len(kept)
    # The stage by itself, whose limit the analysis kept, in the integers it was measured in.
    (clip,) = clips(1)
    with SwitchedEncoders(opened, calibration.ranges, "int8", threads=1) as encoders:
        probe = Probe(encoders, [clip])
        chosen = [(x["stage"], x["node"]) for x in report["layers"] if x["quantize"]]
        assert TokenLoss(probe.reference)(probe.visual(chosen)) == pytest.approx(report["chosen_loss"], rel=1e-3)


def test_auto_names_the_most_that_verification_accepts_or_says_that_no_setting_can_pass(
    calibrated: Path, copy_of: Copy
) -> None:
    opened = Bundle.open(copy_of(calibrated))
    analysis = Analysis(scheme="fp8", max_loss="auto", clips=1)
    folder = calibrate(opened, clips, "a", samples=8, threads=1, analysis=analysis)
    report = json.loads((folder / "sensitivity.json").read_text())
    assert 0 < report["chosen_loss"] == report["max_loss"]
    kept = {x["module"] for x in report["layers"] if not x["quantize"]}
    quantized = json.loads((folder / "report.json").read_text())["quantized"]
    assert kept <= set(quantized["fp8"]["left"])
    assert quantized["fp8"]["limits_used"] <= 0.8
    with pytest.raises(BuildError, match=r"no --max-loss helps: with any layer in fp8 .* build with --precision fp16"):
        calibrate(opened, clips, "b", samples=8, threads=1, budget=1e-6, analysis=analysis)
    assert not (opened.root / "calibration" / "b").exists()


def test_the_loss_of_answers_is_zero_for_fp32_and_grows_with_the_difference(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    stages = Stages.load(opened, _fp32(opened), threads=1)
    visual = [stages.temporal(stages.vision(clip)) for clip in clips(2)]
    loss = AnswerLoss(opened, fp32_decoder(opened, 1), ["What moves?", "How many are there?"], visual)
    assert loss(visual) < 1e-9
    noise = [np.random.default_rng(0).normal(size=x.shape).astype(np.float32) * x.std() for x in visual]
    near, far = (loss([x + size * n for x, n in zip(visual, noise, strict=True)]) for size in (0.05, 0.5))
    assert 1e-9 < near < far


def test_answers_decide_where_questions_are_given_of_a_half_precision_bundle_too(
    checkpoint: Path, tmp_path: Path
) -> None:
    export_bundle(checkpoint, tmp_path / "half", dtype="bfloat16")
    opened = Bundle.open(tmp_path / "half")
    analysis = Analysis(clips=1, asked=lambda: ((clip, "What moves?") for clip in clips(1)))
    folder = calibrate(opened, clips, "a", samples=8, threads=1, budget=math.inf, analysis=analysis)
    report = json.loads((folder / "sensitivity.json").read_text())
    assert report["loss"] == "divergence of the answers (nats)"
    assert max(layer["loss"] for layer in report["layers"]) > 0
    assert all(layer["quantize"] for layer in report["layers"])


def test_an_analysis_without_questions_is_refused(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    with pytest.raises(BuildError, match="the data has no questions"):
        calibrate(opened, clips, "a", samples=8, threads=1, analysis=Analysis(asked=lambda: []))
    assert not (opened.root / "calibration" / "a").exists()


def _fp32(bundle: Bundle):  # type: ignore[no-untyped-def]
    from storm_edge.runtime.bundle.engine import read_engine

    return read_engine(bundle, "cpu-fp32")

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file

from storm_edge.export.build.build import build
from storm_edge.export.build.goal import Goal, judge
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.prepare import prepare
from storm_edge.export.build.tensorrt.compile import compile_graph
from storm_edge.export.build.tensorrt.compile_job import CompileJob
from storm_edge.runtime.bundle.engine import CheckResult, read_engine
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.bundle.trust import choose_engine
from storm_edge.runtime.errors import BuildError, ParityError, TargetError
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.machine.targets import target

Copy = Callable[[Path], Path]
ENCODERS = BuildOptions(prepare_only=True, stages=("vision", "temporal"), max_frames=16)


def largest_error(results: list[CheckResult], stage: str) -> float:
    return max(r.value for r in results if (r.stage, r.metric) == (stage, "max error"))


def test_an_int8_engine_for_the_cpu_is_verified_and_less_exact_than_fp32(calibrated: Path, copy_of: Copy) -> None:
    bundle = Bundle.open(copy_of(calibrated))
    fp32 = read_engine(bundle, "cpu-fp32")
    record = build(bundle, target("cpu"), BuildOptions("int8"))
    assert (record.name, record.verified, record.llm_precision) == ("cpu-int8-llm-fp32", True, "fp32")
    assert record.calibration.startswith("clips ")
    for stage in ("vision", "temporal", "chain"):
        assert 1e-4 < largest_error(record.verification, stage) < 0.12
        assert largest_error(fp32.verification, stage) < 1e-4
    assert largest_error(record.verification, "decoder") < 1e-4
    assert choose_engine(bundle, None, ("cpu",)).name == record.name


def test_layers_json_is_obeyed(calibrated: Path, copy_of: Copy) -> None:
    bundle = Bundle.open(copy_of(calibrated))
    first = build(bundle, target("cpu"), BuildOptions("int8"))
    path = bundle.root / "calibration" / "clips" / "layers.json"
    layers = json.loads(path.read_text())
    for layer in layers["stages"]["vision"].values():
        layer["quantize"] = layer["module"].endswith("fc1")
    path.write_text(json.dumps(layers))
    second = build(bundle, target("cpu"), BuildOptions("int8"))
    assert second.graphs["vision"] != first.graphs["vision"]
    nodes = onnx.load(bundle.path(second.graphs["vision"]), load_external_data=False).graph.node
    assert len([n for n in nodes if n.op_type == "QuantizeLinear"]) == 4


def test_ranges_that_fit_badly_are_not_published(calibrated: Path, copy_of: Copy) -> None:
    from safetensors import safe_open
    from safetensors.numpy import save_file

    bundle = Bundle.open(copy_of(calibrated))
    path = bundle.root / "calibration" / "clips" / "ranges.safetensors"
    with safe_open(path, framework="numpy") as f:
        about = f.metadata()
    save_file({name: np.float32(0.2) * x for name, x in load_file(path).items()}, path, about)
    with pytest.raises(ParityError, match="cpu-int8-llm-fp32 differs from the checkpoint"):
        build(bundle, target("cpu"), BuildOptions("int8"))
    with pytest.raises(ParityError, match="rtx-int8-llm-bf16 differs from the checkpoint"):
        build(bundle, target("rtx"), replace(ENCODERS, precision="int8"))
    assert [p.name for p in (bundle.root / "engines").iterdir() if p.is_dir()] == ["cpu-fp32"]


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_preparing_for_tensorrt_is_checked_against_the_reference(
    precision: str, calibrated: Path, copy_of: Copy
) -> None:
    bundle = Bundle.open(copy_of(calibrated))
    record = build(bundle, target("thor"), replace(ENCODERS, precision=precision))
    assert {r.stage for r in record.verification} == {"vision", "temporal"}
    assert all(r.passed for r in record.verification)
    assert largest_error(record.verification, "vision") > 1e-3


def test_without_a_calibration_or_the_hardware_there_is_one_line_that_says_what_to_do(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    with pytest.raises(BuildError, match="run `storm calibrate"):
        build(opened, target("cpu"), BuildOptions("int8"))
    with pytest.raises(BuildError, match="run `storm calibrate"):
        build(opened, target("orin"), BuildOptions(precision="int8", prepare_only=True))
    for name, options in (
        ("orin", BuildOptions(precision="fp8")),
        ("a100", BuildOptions(precision="fp8")),
        ("rtx", BuildOptions(precision="fp8", sms=(86,))),
    ):
        with pytest.raises(TargetError, match="has no FP8 units, they start at SM 89: use --precision int8"):
            build(opened, target(name), options)


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize(("precision", "sm"), [("int8", 86), ("int8", 89), ("int8", 120), ("fp8", 89), ("fp8", 120)])
def test_tensorrt_for_rtx_compiles_quantized_graphs(
    precision: str, sm: int, calibrated: Path, copy_of: Copy, tmp_path: Path
) -> None:
    bundle = Bundle.open(copy_of(calibrated))
    graphs, _ = prepare(bundle, _goal(bundle, precision))
    for stage in graphs:
        assert compile_graph(_job(bundle, graphs[stage], stage, tmp_path, sm)).engine_bytes > 10_000


@pytest.mark.usefixtures("rtx")
def test_tensorrt_for_rtx_refuses_fp8_on_sm_86(calibrated: Path, copy_of: Copy, tmp_path: Path) -> None:
    bundle = Bundle.open(copy_of(calibrated))
    graphs, _ = prepare(bundle, _goal(bundle, "fp8"))
    with pytest.raises(BuildError, match=r"\(type: .*fp8_e4m3"):
        compile_graph(_job(bundle, graphs["vision"], "vision", tmp_path, 86))


def _goal(bundle: Bundle, precision: str) -> Goal:
    return judge(bundle, target("rtx"), replace(ENCODERS, precision=precision), probe())


def _job(bundle: Bundle, graph: str, stage: str, tmp_path: Path, sm: int) -> CompileJob:
    return CompileJob(
        package="tensorrt_rtx",
        graph=str(bundle.path(graph)),
        engine=str(tmp_path / "out.engine"),
        profiles=_goal(bundle, "fp8").profiles[stage],  # type: ignore[index]
        compute_capabilities=[sm],
    )


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_language_model_of_small_weights_is_verified_and_smaller(precision: str, bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    record = build(
        opened, target("cpu"), BuildOptions("fp32", precision, int4_block=32 if precision == "int4" else 128)
    )
    assert (record.name, record.verified) == (f"cpu-fp32-llm-{precision}", True)
    assert largest_error(record.verification, "decoder") > 1e-3
    assert largest_error(record.verification, "vision") < 1e-4
    sizes = [
        opened.path(f"graphs/{name}").stat().st_size
        for name in ("decoder.data", Path(record.graphs["decoder"]).stem + ".data")
    ]
    assert sizes[0] > 2 * sizes[1]  # beside the weights it holds the rotary tables of 8192 positions in fp32


def test_heads_that_onnxruntimes_attention_does_not_take_are_refused(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    llm = opened.config.llm.model_copy(update={"num_attention_heads": 16})
    config = opened.config.model_copy(update={"llm": llm})
    other = replace(opened, manifest=opened.manifest.model_copy(update={"config": config}))
    with pytest.raises(TargetError, match=r"heads have 8 channels.*--stages vision,temporal"):
        judge(other, target("orin"), BuildOptions(tensorrt="10.3"), probe())


def test_prepared_graphs_stay_as_long_as_an_engine_names_them(bundle: Path, copy_of: Copy) -> None:
    opened = Bundle.open(copy_of(bundle))
    graphs = opened.root / "graphs"
    canonical = {p.name for p in graphs.iterdir()}
    first = build(opened, target("cpu"), BuildOptions("fp32", "int8"))
    second = build(opened, target("cpu"), BuildOptions("fp32", "int4", int4_block=32))
    third = build(opened, target("cpu"), BuildOptions("fp32", "int4", int4_block=64))
    assert second.graphs["decoder"] != third.graphs["decoder"]
    kept = {Path(name).name for record in (first, third) for name in record.files}
    assert {p.name for p in graphs.iterdir()} == canonical | kept
    # What a damaged record names is not known, so nothing goes.
    (opened.root / "engines" / first.name / "engine.json").write_text("{")
    build(opened, target("cpu"), BuildOptions("fp32", "int4", int4_block=32))
    assert {p.name for p in graphs.iterdir()} > canonical | kept

"""What calibration, builds and TensorRT for RTX make of any family's checkpoint; the families' own tests look at it."""

from __future__ import annotations

from pathlib import Path

import onnx

from storm_edge.calibration.calibrate import calibrate
from storm_edge.export.build.build import build
from storm_edge.export.build.goal import judge
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.prepare import prepare
from storm_edge.export.build.tensorrt.compile import compile_graph
from storm_edge.export.build.tensorrt.compile_job import CompileJob
from storm_edge.export.export_bundle import export_bundle, synthetic_frames
from storm_edge.runtime.answer.pipeline import load
from storm_edge.runtime.bundle.calibration import CALIBRATED
from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.manifest import STAGES, Bundle, Stage
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.machine.targets import target

FRAMES = 8  # NVILA averages so many


def quantized_engine(root: Path) -> tuple[Bundle, EngineRecord]:
    """A checkpoint exported, calibrated, built in int8 and int4 for the CPU, verified, and asked once.

    Its graphs are prepared for an Orin and for TensorRT-LLM too.
    """
    export_bundle(root, root.parent / "bundle")
    bundle = Bundle.open(root.parent / "bundle")
    size = bundle.config.vision.image_size
    calibrate(bundle, lambda: (synthetic_frames(FRAMES, size, seed) for seed in range(8)), "frames", samples=8)
    record = build(bundle, target("cpu"), BuildOptions("int8", "int4"))
    assert record.verified
    assert load(bundle.root, record.name).open(synthetic_frames(FRAMES, size, 0)).ask("What?").stats.visual_tokens
    orin = build(bundle, target("orin"), BuildOptions("int8", "int4", int4_block=32, prepare_only=True))
    assert orin.state == "prepared"
    assert {result.stage for result in orin.verification if result.passed} >= {"vision", "temporal"}
    h100 = build(bundle, target("h100"), BuildOptions(llm="tensorrt-llm", prepare_only=True))
    assert h100.state == "prepared"
    return bundle, record


def compiled(root: Path, stages: tuple[Stage, ...] = STAGES) -> dict[str, int]:
    """Bytes of what TensorRT for RTX makes of graphs of a checkpoint, for a card of compute capability 8.9."""
    export_bundle(root, root.parent / "bundle")
    bundle = Bundle.open(root.parent / "bundle")
    goal = judge(bundle, target("rtx"), BuildOptions(max_length=1024, max_frames=16, stages=stages), probe())
    graphs, _ = prepare(bundle, goal)
    found = {}
    for stage, graph in graphs.items():
        engine, profiles = root.parent / f"{stage}.engine", goal.profiles[stage]
        job = {"package": "tensorrt_rtx", "graph": str(bundle.path(graph)), "compute_capabilities": [89]}
        result = compile_graph(CompileJob.model_validate(job | {"engine": str(engine), "profiles": profiles}))
        assert result.engine_bytes == engine.stat().st_size
        found[stage] = result.engine_bytes
    return found


def quantizers(bundle: Bundle, record: EngineRecord) -> dict[str, int]:
    """How many inputs of linear layers each encoder of an engine for the CPU quantizes."""
    graphs = {stage: onnx.load(bundle.path(record.graphs[stage]), load_external_data=False) for stage in CALIBRATED}
    return {stage: sum(n.op_type == "QuantizeLinear" for n in model.graph.node) for stage, model in graphs.items()}

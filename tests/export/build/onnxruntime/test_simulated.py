from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.runtime.answer.pipeline import load
from storm_edge.runtime.bundle.engine import CheckResult, read_engine
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.bundle.trust import choose_engine
from storm_edge.runtime.errors import BuildError, TargetError, UsageError
from storm_edge.runtime.machine.targets import target

Copy = Callable[[Path], Path]


def errors(results: list[CheckResult], stage: str) -> float:
    """How far a stage is from PyTorch at worst."""
    return 1 - min(r.value for r in results if (r.stage, r.metric) == (stage, "cosine"))


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_it_is_as_far_from_pytorch_as_the_graphs_prepared_for_the_target(
    precision: str, calibrated: Path, copy_of: Copy
) -> None:
    bundle = Bundle.open(copy_of(calibrated))
    encoders = BuildOptions(precision=precision, prepare_only=True, stages=("vision", "temporal"))
    prepared = build(bundle, target("h100"), encoders)
    record = build(bundle, target("h100"), BuildOptions(precision=precision, simulate=True, threads=1))
    assert (record.name, record.target) == (f"h100-{precision}-llm-bf16-simulated", "h100")
    assert (record.simulated, record.verified, record.state) == (True, True, "built")
    assert record.calibration.startswith("clips ")
    for stage in ("vision", "temporal"):
        theirs = errors(prepared.verification, stage)
        assert errors(record.verification, stage) == pytest.approx(theirs, rel=0.1)
    assert errors(record.verification, "vision") > 1e-4
    graph = onnx.load(bundle.path(record.graphs["vision"]), load_external_data=False).graph
    kinds = Counter(t.data_type for t in graph.initializer if t.name.endswith(".quantized"))
    assert set(kinds) == {onnx.TensorProto.INT8 if precision == "int8" else onnx.TensorProto.FLOAT8E4M3FN}


def test_it_answers_where_it_is_named_and_is_never_chosen(calibrated: Path, copy_of: Copy) -> None:
    bundle = Bundle.open(copy_of(calibrated))
    options = BuildOptions(precision="int8", llm_precision="int4", int4_block=32, simulate=True, threads=1)
    record = build(bundle, target("h100"), options)
    assert record.name == "h100-int8-llm-int4-simulated"
    weights = onnx.load(bundle.path(record.graphs["decoder"]), load_external_data=False).graph.initializer
    assert sum(t.data_type == onnx.TensorProto.INT4 for t in weights) == 4 * 7
    pipeline = load(bundle.root, record.name, threads=1)
    frames = np.random.default_rng(0).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)
    pipeline.open(frames).ask("What moves?").read()
    for targets in (("cpu",), ("h100", "cpu")):
        assert choose_engine(bundle, None, targets).name == "cpu-fp32"
    assert read_engine(bundle, record.name).verified


def test_what_the_target_cannot_do_or_needs_no_simulation_is_refused(bundle: Path) -> None:
    opened = Bundle.open(bundle)
    for name, precision, error, words in (
        ("orin", "fp8", TargetError, "has no FP8 units"),
        ("cpu", "int8", UsageError, "--simulate stands in for TensorRT: build cpu without it"),
        ("h100", "int8", BuildError, "run `storm calibrate"),
    ):
        with pytest.raises(error, match=words):
            build(opened, target(name), BuildOptions(precision=precision, simulate=True))
    assert [p.name for p in (bundle / "engines").iterdir()] == ["cpu-fp32"]


def test_a_bundle_in_half_precision_is_simulated_too(
    checkpoint: Path, calibrated: Path, tmp_path: Path, copy_of: Copy
) -> None:
    from storm_edge.calibration.calibrate import calibrate
    from storm_edge.export.export_bundle import export_bundle

    export_bundle(checkpoint, tmp_path / "half", dtype="bfloat16")
    bundle = Bundle.open(tmp_path / "half")

    def clips():  # type: ignore[no-untyped-def]
        for i in range(8):
            yield np.random.default_rng(i).integers(0, 256, (8, 64, 64, 3), dtype=np.uint8)

    calibrate(bundle, clips, "clips", samples=8, threads=1)
    assert build(bundle, target("h100"), BuildOptions(precision="int8", simulate=True, threads=1)).verified

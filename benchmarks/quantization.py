"""Measure what int8, fp8 and int4 change in storm-mini with random weights; prints the tables of docs/quantization.md.

    python benchmarks/quantization.py BUNDLE

BUNDLE is copied, calibrated on the demo's clips by every method, and built in every precision this machine can check.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import onnx

from storm_edge.calibration.calibrate import calibrate
from storm_edge.calibration.thresholds import METHODS
from storm_edge.demo.dataset import samples
from storm_edge.export.build.compile import compile_graph
from storm_edge.export.build.compile_job import CompileJob
from storm_edge.export.build.cpu import build_cpu
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.prepare import prepare
from storm_edge.export.build.tensorrt import build_tensorrt, profiles
from storm_edge.runtime.bundle import Bundle
from storm_edge.runtime.engine import CheckResult
from storm_edge.runtime.errors import BuildError
from storm_edge.runtime.targets import target

CLIPS, FRAMES = 32, 16
STAGES = ("vision", "temporal", "chain")
ENCODERS = BuildOptions(stages=("vision", "temporal"), max_frames=16, prepare_only=True, allow_mismatch=True)


def row(name: str, results: list[CheckResult], stages: tuple[str, ...]) -> None:
    """Print the worst of all clips: 1 - cosine and the largest error over the largest value, stage by stage."""
    cells = []
    for stage in stages:
        worst = {m: [r.value for r in results if (r.stage, r.metric) == (stage, m)] for m in ("cosine", "max error")}
        cells.append(f"{1 - min(worst['cosine']):.1e}, {max(worst['max error']):.1e}" if worst["cosine"] else "")
    print(f"| {name} | {' | '.join(cells)} |")


def encoders(bundle: Bundle) -> None:
    """Tables of the calibration methods, and of the graphs themselves."""
    size = bundle.config.vision.image_size
    print("| method, engine | vision | temporal | both in a chain |\n|---|---|---|---|")
    for method in METHODS:
        calibrate(
            bundle,
            lambda: (s.frames for s in samples(frames=FRAMES, size=size, split="train")),
            method,
            samples=CLIPS,
            method=method,
        )
        record = build_cpu(bundle, "int8", calibration=method, allow_mismatch=True)
        row(f"{method}, CPU int8", record.verification, STAGES)
        for precision in ("int8", "fp8") if method == "minmax" else ("int8",):
            options = BuildOptions(**{**vars(ENCODERS), "precision": precision, "calibration": method})
            made = build_tensorrt(bundle, target("thor"), options)
            row(f"{method}, TensorRT {precision} (simulated)", made.verification, STAGES)
    print("\n| graph | QuantizeLinear | DequantizeLinear | MatMul with both | MatMul in all |\n|---|---|---|---|---|")
    graphs, _ = prepare(bundle, "count", "int8", "bf16", (10, 15), _options("int8"))
    for stage, graph in graphs.items():
        nodes = onnx.load(bundle.path(graph), load_external_data=False).graph.node
        count = Counter(node.op_type for node in nodes)
        made_of = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
        both = sum(node.op_type == "MatMul" and set(node.input) <= made_of for node in nodes)
        print(f"| {stage} | {count['QuantizeLinear']} | {count['DequantizeLinear']} | {both} | {count['MatMul']} |")


def language_model(bundle: Bundle) -> None:
    """Table of the decoder's weights in 8 and 4 bits."""
    fp32 = bundle.path("graphs/decoder.data").stat().st_size
    print("\n| weights | decoder | greedy tokens | MB |\n|---|---|---|---|")
    for precision, block in (("int8", 128), ("int4", 128), ("int4", 32)):
        record = build_cpu(bundle, "fp32", precision, int4_block=block, allow_mismatch=True)
        of = [r for r in record.verification if r.stage == "decoder"]
        cosine, error, tokens = (
            np.array([r.value for r in of if r.metric == m]) for m in ("cosine", "max error", "greedy tokens")
        )
        data = bundle.path(record.graphs["decoder"]).with_suffix(".data").stat().st_size
        figures = (
            f"{1 - cosine.min():.1e}, {error.max():.1e} | {tokens.min():.0%} | {data / 1e6:.2f} of {fp32 / 1e6:.2f}"
        )
        print(f"| {precision}, blocks of {block} | {figures} |")


def rtx(bundle: Bundle, folder: Path) -> None:
    """Table of what TensorRT for RTX makes of the graphs."""
    print("\n| precision, stage | SM 86 | SM 89 | SM 120 |\n|---|---|---|---|")
    for precision in ("fp16", "int8", "fp8"):
        options = _options(precision)
        graphs, _ = prepare(bundle, "rtx", precision, "bf16", (10, 15), options)
        for stage, graph in graphs.items():
            cells = []
            for sm in (86, 89, 120):
                job = CompileJob(
                    api="tensorrt_rtx",
                    graph=str(bundle.path(graph)),
                    engine=str(folder / "engine"),
                    profiles=profiles(bundle, options)[stage],
                    compute_capability=sm,
                )
                try:
                    cells.append(f"{compile_graph(job).engine_bytes / 1e6:.2f} MB")
                except BuildError as e:
                    cells.append("refused: fp8_e4m3" if "fp8_e4m3" in str(e) else "FAILED")
            print(f"| {precision}, {stage} | {' | '.join(cells)} |", flush=True)


def _options(precision: str) -> BuildOptions:
    return BuildOptions(**{**vars(ENCODERS), "precision": precision, "calibration": "minmax"})


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        root = Path(shutil.copytree(sys.argv[1], Path(name) / "bundle"))
        opened = Bundle.open(root)
        encoders(opened)
        language_model(opened)
        rtx(opened, Path(name))

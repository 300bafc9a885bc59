"""Measure what int8, fp8 and int4 change in a model; prints the tables of docs/quantization.md.

    python benchmarks/quantization.py BUNDLE
    python benchmarks/quantization.py BUNDLE --questions 2000 [--data DIR]

BUNDLE is copied. The first form calibrates on the demo's clips by every method, and with smoothing and scaling, and
prints distances from PyTorch of every precision this machine can check. The second asks the same questions of an engine
of every precision and prints accuracies, with the paired differences from fp32 and their 95% intervals.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray

from storm_edge.calibration.analysis import Analysis
from storm_edge.calibration.awq import Awq
from storm_edge.calibration.calibrate import calibrate
from storm_edge.calibration.language import Language
from storm_edge.calibration.smoothquant import SmoothQuant
from storm_edge.calibration.thresholds import METHODS
from storm_edge.cli.data import DEMO, data_of
from storm_edge.demo.dataset import samples
from storm_edge.export.build.build import build
from storm_edge.export.build.goal import Goal, judge
from storm_edge.export.build.onnxruntime.cpu import build_cpu
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.prepare import prepare
from storm_edge.export.build.tensorrt.compile import compile_graph
from storm_edge.export.build.tensorrt.compile_job import CompileJob
from storm_edge.runtime.answer.pipeline import load
from storm_edge.runtime.bundle.calibration import REPORT, find_awq, find_calibration
from storm_edge.runtime.bundle.engine import CheckResult, EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import BuildError
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.proof.divergence import logit_divergence
from storm_edge.runtime.proof.evaluate import Result, evaluate, paired

CLIPS, FRAMES = 32, 16
MAX_LOSS = 0.05  # relative error of the visual tokens up to which layers are quantized
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
            budget=math.inf,
        )
        record = cpu(bundle, "int8", "fp32", method)
        row(f"{method}, CPU int8", record.verification, STAGES)
        for precision in ("int8", "fp8") if method == "minmax" else ("int8",):
            made = build(bundle, target("thor"), replace(ENCODERS, precision=precision, calibration=method))
            row(f"{method}, TensorRT {precision} (simulated)", made.verification, STAGES)
    print("\n| graph | QuantizeLinear | DequantizeLinear | MatMul with both | MatMul in all |\n|---|---|---|---|---|")
    graphs, _ = prepare(bundle, _goal(bundle, "int8"))
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
    for precision, block, calibration in (
        ("int8", 128, "minmax"),
        ("int4", 128, "minmax"),
        ("int4", 128, "even"),
        ("int4", 32, "minmax"),
        ("int4", 32, "even"),
    ):
        record = cpu(bundle, "fp32", precision, calibration, block)
        of = [r for r in record.verification if r.stage == "decoder"]
        cosine, error, tokens = (
            np.array([r.value for r in of if r.metric == m]) for m in ("cosine", "max error", "greedy tokens")
        )
        data = bundle.path(record.graphs["decoder"]).with_suffix(".data").stat().st_size
        figures = (
            f"{1 - cosine.min():.1e}, {error.max():.1e} | {tokens.min():.0%} | {data / 1e6:.2f} of {fp32 / 1e6:.2f}"
        )
        scaled = ", scaled" if calibration == "even" else ""
        print(f"| {precision}, blocks of {block}{scaled} | {figures} |")


def rtx(bundle: Bundle, folder: Path) -> None:
    """Table of what TensorRT for RTX makes of the graphs."""
    print("\n| precision, stage | SM 86 | SM 89 | SM 120 |\n|---|---|---|---|")
    for precision in ("fp16", "int8", "fp8"):
        goal = _goal(bundle, precision)
        graphs, _ = prepare(bundle, goal)
        for stage, graph in graphs.items():
            cells = []
            for sm in (86, 89, 120):
                job = CompileJob(
                    package="tensorrt_rtx",
                    graph=str(bundle.path(graph)),
                    engine=str(folder / "engine"),
                    profiles=goal.profiles[stage],
                    compute_capabilities=[sm],
                )
                try:
                    cells.append(f"{compile_graph(job).engine_bytes / 1e6:.2f} MB")
                except BuildError as e:
                    cells.append("refused: fp8_e4m3" if "fp8_e4m3" in str(e) else "FAILED")
            print(f"| {precision}, {stage} | {' | '.join(cells)} |", flush=True)


def _goal(bundle: Bundle, precision: str) -> Goal:
    calibration = None if precision == "fp16" else "minmax"
    return judge(bundle, target("rtx"), replace(ENCODERS, precision=precision, calibration=calibration), probe())


def cpu(bundle: Bundle, precision: str, llm: str, calibration: str = "chosen", block: int = 128) -> EngineRecord:
    """An engine for a CPU with this calibration, where it has no scales for int4 too: such a build is no user's."""
    options = BuildOptions(precision, llm, int4_block=block, allow_mismatch=True)
    found = find_calibration(bundle, calibration) if "int" in precision + llm else None
    runner = target("cpu").runner
    return build_cpu(bundle, Goal(target("cpu"), options, probe(), precision, llm, runner, runner, found))


def outliers(bundle: Bundle) -> None:
    """Tables of what smoothing the encoders' norms and scaling the language model's weights is worth."""
    folder = calibrate(
        bundle,
        lambda: (clip for clip, _ in train(bundle)),
        "even",
        samples=CLIPS,
        smoothquant=SmoothQuant(),
        awq=awq(bundle),
    )
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    print("\n| | chosen | without | with | used |\n|---|---|---|---|---|")
    for title, key, parts, unit in (
        ("norms smoothed: relative error of the visual tokens in int8", "smoothing", "norms", "error"),
        ("weights scaled: divergence of the answers in int4, nats", "scaling", "groups", "divergence"),
    ):
        found = report[key]
        chosen = f"{sum(x['alpha'] is not None for x in found[parts])} of {len(found[parts])}"
        figures = f"{found[f'{unit}_without']:.2e} | {found[f'{unit}_with']:.2e}"
        print(f"| {title} | {chosen} | {figures} | {'yes' if found['used'] else 'no'} |")


def train(bundle: Bundle) -> Iterator[tuple[NDArray[np.uint8], str]]:
    """The demo's training clips, with questions: those that are asked below stay unseen."""
    for sample in samples(frames=FRAMES, size=bundle.config.vision.image_size, split="train"):
        yield sample.frames, sample.question.text


def awq(bundle: Bundle) -> Awq:
    """Scaling by those questions."""
    return Awq(lambda: train(bundle))


def accuracy(bundle: Bundle, data: str, number: int) -> None:
    """Tables of accuracies: overall and by group of types, then every type by itself."""

    def clips() -> Iterator[NDArray[np.uint8]]:
        return (clip for clip, _ in train(bundle))

    calibrate(bundle, clips, "plain", samples=CLIPS, budget=math.inf)
    calibrate(bundle, clips, "chosen", samples=CLIPS, budget=math.inf, analysis=Analysis(max_loss=MAX_LOSS))
    language = Language(lambda: train(bundle))
    calibrate(bundle, clips, "awq", samples=CLIPS, budget=math.inf, awq=awq(bundle), language=language)
    h100 = target("h100")

    def simulated(precision: str, llm: str = "fp16", calibration: str | None = "chosen") -> EngineRecord:
        return build(
            bundle,
            h100,
            BuildOptions(precision, llm, calibration=calibration, simulate=True, allow_mismatch=True),
        )

    # Built one at a time, just before it is asked: the int4 engines have one name.
    engines: dict[str, Callable[[], EngineRecord]] = {
        "fp32": lambda: cpu(bundle, "fp32", "fp32"),
        "int8 encoders, all layers, CPU": lambda: cpu(bundle, "int8", "fp32", "plain"),
        "int8 encoders, CPU": lambda: cpu(bundle, "int8", "fp32"),
        "int8 encoders, TensorRT (simulated)": lambda: simulated("int8"),
        "fp8 encoders, TensorRT (simulated)": lambda: simulated("fp8"),
        "int8 language model": lambda: cpu(bundle, "fp32", "int8"),
        "int4 language model, blocks of 128": lambda: cpu(bundle, "fp32", "int4"),
        "int4 language model, blocks of 32": lambda: cpu(bundle, "fp32", "int4", block=32),
        "int4 language model, scaled": lambda: cpu(bundle, "fp32", "int4", "awq"),
        "fp8 language model, TensorRT (simulated)": lambda: simulated("fp16", "fp8", "awq"),
        "int8 encoders, int8 language model": lambda: cpu(bundle, "int8", "int8"),
        "int8 encoders, int4 language model": lambda: cpu(bundle, "int8", "int4"),
    }
    if find_awq(bundle, "awq") is None:
        del engines["int4 language model, scaled"]
    answers: dict[str, list[Result]] = {}
    logits: dict[str, float] = {}
    for name, make in engines.items():
        record = make()
        pipeline = load(bundle.root, record.name)
        title = name if record.verified else f"{name} (fails verification)"
        asked, frames, _ = data_of(data).items(
            FRAMES if data == DEMO else None, number, bundle.config.vision.image_size
        )
        answers[title] = evaluate(pipeline, asked, frames=frames)
        logits[title] = logit_divergence(bundle, pipeline.stages).kl
        print(f"{title}: done", file=sys.stderr, flush=True)
    kinds = sorted({result.type for results in answers.values() for result in results})
    groups = sorted({kind.split("/")[0] for kind in kinds if "/" in kind})
    print(f"{len(answers['fp32'])} questions of {data}; difference from fp32 in points, with its 95% interval")
    if find_awq(bundle, "awq") is None:
        print("scaling brought the answers no nearer to fp32's, so that engine was left out")
    print("\n| engine | KL of the logits |\n|---|---|")
    for name, divergence in logits.items():
        print(f"| {name} | {divergence:.1e} |")
    for columns in (["", *groups], kinds):
        print(f"\n| engine | {' | '.join(kind or 'all' for kind in columns)} |\n|{'---|' * (len(columns) + 1)}")
        for name, results in answers.items():
            print(f"| {name} | {' | '.join(_cell(answers['fp32'], results, kind) for kind in columns)} |")


def _cell(fp32: list[Result], ours: list[Result], kind: str) -> str:
    """The accuracy of a type or group of types, "" for all, and its difference from fp32's."""
    of_kind = [i for i, x in enumerate(fp32) if kind in ("", x.type, x.type.split("/")[0])]
    right = [ours[i].right for i in of_kind]
    share = f"{sum(right) / len(right):.1%}"
    if ours is fp32:
        return share
    difference, low, high = (100 * x for x in paired([fp32[i].right for i in of_kind], right))
    return f"{share}, {difference:+.2f} ({low:+.2f} to {high:+.2f})"


def main() -> None:
    """Print the tables that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--questions", type=int, help="ask so many questions instead of measuring distances")
    parser.add_argument("--data", default="demo", help="`demo`, or a folder with questions as `storm eval` takes them")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bundle = Bundle.open(shutil.copytree(given.bundle, Path(name) / "bundle"))
        if given.questions is not None:
            accuracy(bundle, given.data, given.questions)
            return
        encoders(bundle)
        outliers(bundle)
        language_model(bundle)
        rtx(bundle, Path(name))


if __name__ == "__main__":
    main()

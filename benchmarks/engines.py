"""Which prepared graphs TensorRT for RTX compiles, for which GPUs, and what that takes; prints Markdown.

    python benchmarks/engines.py > docs/engines.md               all models: ten GB of memory and disk
    python benchmarks/engines.py storm-mini > docs/engines.md

Needs no GPU: TensorRT for RTX compiles for GPUs that are not there. Nothing is run.
"""

from __future__ import annotations

import datetime
import importlib.metadata
import sys
import tempfile
from pathlib import Path

from models import MODELS

from storm_edge.export.build.goal import judge
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.prepare import prepare
from storm_edge.export.build.tensorrt.compile import compile_graph
from storm_edge.export.build.tensorrt.compile_job import CompileJob
from storm_edge.export.export_bundle import export_bundle
from storm_edge.export.initialize import initialize
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.errors import BuildError
from storm_edge.runtime.machine.doctor import examine
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.machine.targets import target

SMS = (86, 89, 120)
# stage, precision, language model's precision, target whose graphs these are, TensorRT's version, what to call it
FORMS: tuple[tuple[Stage, str, str, str, str | None, str], ...] = (
    ("vision", "fp16", "bf16", "rtx", None, "fp16, Attention operator"),
    ("vision", "bf16", "bf16", "rtx", None, "bf16, Attention operator"),
    ("vision", "fp16", "bf16", "orin", "10.7", "fp16, lowered to opset 20"),
    ("temporal", "fp16", "bf16", "rtx", None, "fp16, function bodies"),
    ("temporal", "bf16", "bf16", "rtx", None, "bf16, function bodies"),
    ("decoder", "fp16", "bf16", "rtx", None, "bf16"),
    ("decoder", "fp16", "fp16", "rtx", None, "fp16"),
    ("decoder", "fp16", "int4", "rtx", None, "int4 blocks of 128, bf16 activations"),
)


def report(title: str, bundle: Bundle, folder: Path) -> None:
    """Print one model's table."""
    longest = bundle.config.llm.max_position_embeddings
    print(f"\n## {title}\n")
    print("| graph | form | SM | result | seconds | engine | builder's peak |\n|---|---|---|---|---|---|---|")
    for stage, precision, llm_precision, name, version, words in FORMS:
        chosen = BuildOptions(
            precision,
            llm_precision,
            tensorrt=version,
            stages=(stage,),
            max_frames=32,
            max_length=min(4096, longest),
        )
        goal = judge(bundle, target(name), chosen, probe())
        graphs, _ = prepare(bundle, goal)
        for sm in SMS:
            job = CompileJob(
                package="tensorrt_rtx",
                graph=str(bundle.path(graphs[stage])),
                engine=str(folder / "out.engine"),
                profiles=goal.profiles[stage],
                compute_capabilities=[sm],
            )
            try:
                result = compile_graph(job)
            except BuildError as e:
                print(f"| {stage} | {words} | {sm} | refused: {str(e)[:300]} | | | |", flush=True)
                continue
            sizes = f"{result.engine_bytes / 2**20:.1f} MiB | {result.peak_memory_bytes / 2**20:.0f} MiB"
            print(f"| {stage} | {words} | {sm} | built | {result.seconds:.1f} | {sizes} |", flush=True)


def main() -> None:
    """Print the report of the models named on the command line, or of all."""
    names = sys.argv[1:] or list(MODELS)
    machine = examine()["machine"]
    print("# Engines: what compiles\n")
    print(f"{datetime.date.today()}, TensorRT for RTX {importlib.metadata.version('tensorrt-rtx')} without a GPU,")
    print(f"{machine['processor']}, {machine['cores']} cores. Random weights.")
    print(f"Made by `python benchmarks/engines.py{''.join(' ' + repr(name) for name in sys.argv[1:])}`.\n")
    print(
        "Compiled means: parsed as a strongly typed network and built for the SM. No engine has been run. TensorRT for"
    )
    print("RTX has no build for SM 87, 90, 100 and 110; graphs for those targets are prepared by the same passes.")
    print("`storm build BUNDLE --target rtx --sm 86,89,120` makes one engine for all three on a machine without a GPU;")
    print("the same command on a machine with one of them verifies it without compiling it again.\n")
    print(
        "Where the form says Attention operator, and in every decoder, attention is fused: the builder refuses such a"
    )
    print("node for which it has no fused kernel. Whether it fuses the lowered form is unknown.")
    for name in names:
        config = MODELS[name]
        with tempfile.TemporaryDirectory() as folder:
            initialize(config, Path(folder) / "checkpoint")
            export_bundle(Path(folder) / "checkpoint", Path(folder) / "bundle")
            report(name, Bundle.open(Path(folder) / "bundle"), Path(folder))


if __name__ == "__main__":
    main()

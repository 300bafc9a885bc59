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
from dataclasses import dataclass, replace
from pathlib import Path

from models import MODELS

from storm_edge.export.build.goal import Goal, judge
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.pieces import temporal_pieces
from storm_edge.export.build.prepare import prepare
from storm_edge.export.build.tensorrt.compile import compile_graph
from storm_edge.export.build.tensorrt.compile_job import CompileJob, CompileResult
from storm_edge.export.build.tensorrt.profiles import piece_profile
from storm_edge.export.export_bundle import export_bundle
from storm_edge.export.initialize import initialize
from storm_edge.plugins.libraries import TENSORRT, find_library
from storm_edge.runtime.bundle.engine import FoundLayers
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.config.sizes import chunk_frames
from storm_edge.runtime.errors import BuildError
from storm_edge.runtime.machine.doctor import examine
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.machine.targets import target

SMS = (86, 89, 120)
CLIP = 32  # frames
MIB = 2**20
NOTES = f"""Where the form says Attention operator, and in every decoder, attention is fused: the builder refuses such a
node for which it has no fused kernel. Where it was lowered, and for plugins, `found` is what the builder's list of
layers says; with a GPU the engine inspector tells, and `storm build` prints it. Nothing is known of TensorRT 10.3.

`context` is the device memory that an execution context takes, as the builder says: activations and scratch memory
for the largest shapes, without weights, and without inputs, outputs and KV cache. Clips have {CLIP} frames.

In 16 bits TensorRT for RTX puts the decoder's weights into an engine once for every optimization profile, though told
to add none for the second; in int4 it does not. And it makes kernels for the shapes at hand when it runs. So its
engines have one profile, unless `--decoder-profiles 2` asks for two. TensorRT's have two; whether these share their
weights is unknown: the engine's size shows it, and `--decoder-profiles 1` is the remedy."""


@dataclass(frozen=True)
class Form:
    """A stage as it is compiled; `target` is whose graphs these are."""

    stage: Stage
    words: str
    options: BuildOptions
    target: str = "rtx"
    plugin: bool = False
    piece: str = ""  # of the temporal graph, where it is one


def encoder(stage: Stage, precision: str, words: str, tensorrt: str | None = None, plugin: bool = False) -> Form:
    """Vision or temporal; with `tensorrt` the form that an Orin of that version takes."""
    options = BuildOptions(precision, tensorrt=tensorrt, stages=(stage,), max_frames=CLIP)
    return Form(stage, f"{precision}, {words}", options, "orin" if tensorrt else "rtx", plugin)


def decoder(precision: str, words: str, number: int) -> Form:
    """The decoder with a number of profiles."""
    options = BuildOptions(llm_precision=precision, stages=("decoder",), max_frames=CLIP, decoder_profiles=number)
    return Form("decoder", f"{words}, {number} profile{'s' * (number > 1)}", options)


def forms() -> list[Form]:
    """Every form that is compiled for each of SMS."""
    wide = encoder("vision", "fp16", "lowered to opset 20, fp32 softmax", "10.7")
    found = [
        encoder("vision", "fp16", "Attention operator"),
        encoder("vision", "bf16", "Attention operator"),
        encoder("vision", "fp16", "lowered to opset 20", "10.7"),
        replace(wide, options=replace(wide.options, wide_softmax=True)),
        encoder("temporal", "fp16", "function bodies"),
        encoder("temporal", "bf16", "function bodies"),
    ]
    if find_library(TENSORRT) is not None:
        found.append(encoder("temporal", "fp16", "plugin", plugin=True))
    for precision, words in (("bf16", "bf16"), ("fp16", "fp16"), ("int4", "int4 blocks of 128, bf16 activations")):
        found += [decoder(precision, words, 2), decoder(precision, words, 1)]
    return found


def shapes(bundle: Bundle) -> list[Form]:
    """The same graphs with the shapes of this version, and those of the version before."""
    side, width = bundle.config.vision.image_size, bundle.config.llm.hidden_size
    frames = (("frames", (16, side, side, 3)),)
    tokens = (("inputs_embeds", (1, 256, width)), ("position_ids", (1, 256)))
    most = bundle.config.llm.max_position_embeddings
    vision, short = encoder("vision", "fp16", "8 frames at once"), decoder("bf16", "", 1)
    before = replace(short.options, max_shapes=tokens, max_length=most)
    length = replace(short.options, max_shapes=tokens)
    return [
        Form("vision", "before: 16 frames at once", replace(vision.options, max_shapes=frames)),
        Form("vision", "now: 8 frames at once", vision.options),
        Form("decoder", f"before: {most:,} positions, 256 tokens at once", before),
        Form("decoder", "positions of the clip and 1,024, 256 tokens at once", length),
        Form("decoder", "now, TensorRT for RTX: these, up to 2,048 tokens at once", short.options),
        Form(
            "decoder", "now, TensorRT: these, and a profile for one token", replace(short.options, decoder_profiles=2)
        ),
    ]


def pieces(bundle: Bundle) -> list[Form]:
    """The pieces that long clips go through: one layer's, and what is before and behind all layers."""
    plugin = find_library(TENSORRT) is not None
    form = encoder("temporal", "fp16", "plugin" if plugin else "function bodies", plugin=plugin)
    names, _ = cut(bundle, form)
    first = [name for name in names if name.partition(".")[0] in ("0", name)]
    return [
        replace(
            form,
            words=f"{form.words}, {name}",
            piece=name,
            plugin=plugin and name.rpartition(".")[2] not in ("enter", "pool"),
        )
        for name in first
    ]


def cut(bundle: Bundle, form: Form) -> tuple[dict[str, str], Goal]:
    """The files of a form's pieces by name, and what they are made for."""
    goal = judge(bundle, target(form.target), form.options, probe())
    graphs, _ = prepare(bundle, goal)
    names, _ = temporal_pieces(bundle, goal.name, graphs["temporal"])
    return names, goal


def compiled(bundle: Bundle, form: Form, folder: Path, sms: tuple[int, ...]) -> list[CompileResult | BuildError]:
    """What became of a form, for every SM."""
    if form.piece:
        names, goal = cut(bundle, form)
        graph, profiles = names[form.piece], [piece_profile(bundle.config, form.piece)]
    else:
        goal = judge(bundle, target(form.target), form.options, probe())
        graph, profiles = prepare(bundle, goal)[0][form.stage], goal.profiles[form.stage]
    job = CompileJob(
        package="tensorrt_rtx",
        graph=str(bundle.path(graph)),
        engine=str(folder / "out.engine"),
        profiles=profiles,
        plugins=[str(find_library(TENSORRT))] if form.plugin else [],
    )
    results: list[CompileResult | BuildError] = []
    for sm in sms:
        try:
            results.append(compile_graph(job.model_copy(update={"compute_capabilities": [sm]})))
        except BuildError as e:
            results.append(e)
    return results


def report(title: str, bundle: Bundle, folder: Path) -> None:
    """Print one model's tables."""
    print(f"\n## {title}\n")
    table(bundle, folder, forms())
    frames = chunk_frames(bundle.config)
    print(f"\nThe pieces that long clips go through the temporal encoder in, {frames} frames at a time:\n")
    table(bundle, folder, pieces(bundle))
    print("\nThe memory of a context before and now, and what makes the difference; SM 89:\n")
    print("| graph | shapes | engine | context |\n|---|---|---|---|")
    for form in shapes(bundle):
        (result,) = compiled(bundle, form, folder, (89,))
        if isinstance(result, BuildError):
            raise result
        sizes = f"{result.engine_bytes / MIB:.1f} MiB | {result.activation_bytes / MIB:.1f} MiB"
        print(f"| {form.stage} | {form.words} | {sizes} |", flush=True)


def table(bundle: Bundle, folder: Path, forms: list[Form]) -> None:
    """Print what becomes of forms."""
    print("| graph | form | SM | result | seconds | engine | context | found | builder's peak |")
    print("|---|---|---|---|---|---|---|---|---|")
    for form in forms:
        for sm, result in zip(SMS, compiled(bundle, form, folder, SMS), strict=True):
            if isinstance(result, BuildError):
                print(f"| {form.stage} | {form.words} | {sm} | refused: {str(result)[:300]} | | | | | |", flush=True)
                continue
            sizes = f"{result.engine_bytes / MIB:.1f} MiB | {result.activation_bytes / MIB:.1f} MiB"
            row = f"| {form.stage} | {form.words} | {sm} | built | {result.seconds:.1f} | {sizes}"
            print(f"{row} | {told(result.layers)} | {result.peak_memory_bytes / MIB:.0f} MiB |", flush=True)


def told(layers: FoundLayers) -> str:
    """What the builder's list says of the layers that were looked for."""
    if layers.plugins:
        return f"{layers.plugins_found} of {layers.plugins} plugins"
    if layers.attentions:
        return f"{layers.attentions_fused} of {layers.attentions} attentions fused"
    return "-"


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
    print(NOTES)
    for name in names:
        config = MODELS[name]
        with tempfile.TemporaryDirectory() as folder:
            initialize(config, Path(folder) / "checkpoint")
            export_bundle(Path(folder) / "checkpoint", Path(folder) / "bundle")
            report(name, Bundle.open(Path(folder) / "bundle"), Path(folder))


if __name__ == "__main__":
    main()

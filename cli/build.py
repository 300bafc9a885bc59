"""`storm build`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from storm_edge.cli.options import COUNT, threads_option
from storm_edge.cli.printing import echo
from storm_edge.cli.progress import progress, say


@click.command("build")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--target", "target_name", required=True, help="What to build for; `storm doctor` lists the targets.")
@click.option("--precision", help="Precision of the vision tower and temporal encoder; default: the target's.")
@click.option("--llm-precision", help="Precision of the language model; default: the target's.")
@click.option("--llm", metavar="RUNNER", help="What runs the language model: tensorrt-llm or vllm in a data center.")
@click.option("--tp", type=COUNT, default=1, show_default=True, help="GPUs that share the language model, with --llm.")
@click.option("--prepare-only", is_flag=True, help="GPU targets: write the graphs and stop, on any machine.")
@click.option("--simulate", is_flag=True, help="TensorRT targets: an engine for this CPU that computes the same.")
@click.option("--tensorrt", metavar="VERSION", help="Prepare for this TensorRT, 10.3 for instance.")
@click.option(
    "--sm", metavar="SM,...", help="Target rtx: GPUs to compile for, 86,89,120 for instance; none need be here."
)
@click.option("--stages", default="vision,temporal,decoder", show_default=True, help="TensorRT targets: what to build.")
@click.option("--max-frames", type=COUNT, default=128, show_default=True, help="Longest clip, in frames.")
@click.option("--max-length", type=COUNT, help="Tokens of the KV cache; default: --max-frames and 1024 of text.")
@click.option(
    "--int4-block",
    type=click.Choice(["32", "64", "128"]),
    default="128",
    show_default=True,
    help="int4 weights that share a scale.",
)
@click.option("--calibration", metavar="NAME", help="Ranges of int8 and fp8, scales of int4, where BUNDLE has several.")
@click.option("--min-shapes", metavar="NAME:AxBxC,...", help="Smallest input shapes, as trtexec takes them.")
@click.option("--opt-shapes", metavar="NAME:AxBxC,...", help="Input shapes to optimize for.")
@click.option("--max-shapes", metavar="NAME:AxBxC,...", help="Largest input shapes.")
@click.option(
    "--workspace", type=click.FloatRange(0, min_open=True), metavar="GIB", help="Limit of the builder's scratch memory."
)
@click.option(
    "--decoder-profiles", type=click.IntRange(1, 2), help="Kernels for one token and a prompt together, or for each."
)
@click.option("--wide-softmax", is_flag=True, help="TensorRT before 10.14: softmax in fp32, between casts.")
@click.option("--without-plugin", is_flag=True, help="TensorRT: expand the operators, for whom slow is fast enough.")
@click.option("--allow-mismatch", is_flag=True, help="Publish an engine that fails verification.")
@click.option("--trust-engines", is_flag=True, help="Let an engine that somebody else compiled count as built.")
@threads_option("CPU threads for the verification; default: all cores.")
@click.option("--json", "as_json", is_flag=True, help="Print the engine's record and timings as JSON.")
@click.pass_context
def command(ctx: click.Context, /, bundle: Path, target_name: str, **options: Any) -> None:
    """Build an engine from BUNDLE and verify it; a failing engine is not published."""
    from storm_edge.export.build.build import build
    from storm_edge.export.build.device_command import device_command
    from storm_edge.export.build.language import builder_of
    from storm_edge.export.build.options import BuildOptions, parse_shapes, parse_sms, parse_stages
    from storm_edge.export.build.tensorrt.plugin import findings, warnings
    from storm_edge.runtime.bundle.manifest import Bundle
    from storm_edge.runtime.machine.targets import target
    from storm_edge.runtime.runners import RUNNERS

    where = target(target_name)
    opened = Bundle.open(bundle)

    chosen = BuildOptions(
        precision=options["precision"],
        llm_precision=options["llm_precision"],
        llm=options["llm"],
        tp=options["tp"],
        tensorrt=options["tensorrt"],
        sms=parse_sms(options["sm"]),
        stages=parse_stages(options["stages"]),
        max_frames=options["max_frames"],
        max_length=options["max_length"],
        int4_block=int(options["int4_block"]),
        workspace_gib=options["workspace"],
        calibration=options["calibration"],
        min_shapes=parse_shapes(options["min_shapes"]),
        opt_shapes=parse_shapes(options["opt_shapes"]),
        max_shapes=parse_shapes(options["max_shapes"]),
        decoder_profiles=options["decoder_profiles"],
        wide_softmax=options["wide_softmax"],
        without_plugin=options["without_plugin"],
        prepare_only=options["prepare_only"],
        simulate=options["simulate"],
        allow_mismatch=options["allow_mismatch"],
        trust_engines=options["trust_engines"],
        threads=options["threads"],
        given=_given(ctx),
    )
    with progress(ctx, "build") as step:
        record = build(opened, where, chosen, step)
    if options["as_json"]:
        click.echo(json.dumps(record.model_dump(mode="json") | {"seconds": step.seconds}))
    elif record.state == "prepared":
        runner = RUNNERS[where.runner]
        made_for = record.versions["tensorrt" if runner.compiles else runner.package]
        version = f"{runner.words} {made_for}" if not runner.for_absent_gpus else runner.words
        not_yet = "compiled" if runner.compiles else "run"
        there = device_command(opened, record.target, record.precision, record.llm_precision, chosen)
        say(ctx, f"{bundle}/engines/{record.name}: prepared for {version}, not {not_yet}; on the device: `{there}`.")
        checked = len(record.graphs) - len(record.unchecked)
        why = "".join(f"; {stage}: {reason}" for stage, reason in record.unchecked.items())
        say(ctx, f"{checked} of {len(record.graphs)} stages could be checked here{why}.")
        if "decoder" in record.runners and (builder := builder_of(record.runners["decoder"])):
            say(ctx, f"the language model alone, without storm: `{builder.by_hand(opened, record.name, chosen)}`.")
    elif record.state == "compiled":
        sms = ", ".join(map(str, record.sms))
        hint = "the same command on a machine with such a GPU verifies a whole engine"
        say(ctx, f"{bundle}/engines/{record.name}: compiled for SM {sms}, not run; {hint}.")
    else:
        passed = sum(r.passed for r in record.verification)
        say(ctx, f"{bundle}/engines/{record.name}: {passed} of {len(record.verification)} checks passed.")
    if not options["as_json"]:
        for note in (*record.notes, *findings(record)):
            say(ctx, f"note: {note}")
    for line in warnings(record):
        echo(f"warning: {line}", err=True)
    if record.state == "built" and not record.verified:
        echo("warning: this engine differs from the checkpoint; it runs only when named with --engine.", err=True)


def _given(ctx: click.Context) -> frozenset[str]:
    """The flags on the command line."""
    said = click.core.ParameterSource.COMMANDLINE
    return frozenset(p.opts[0] for p in ctx.command.params if p.name and ctx.get_parameter_source(p.name) == said)

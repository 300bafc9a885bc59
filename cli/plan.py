"""`storm plan`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from storm_edge.cli.options import COUNT
from storm_edge.cli.printing import echo

if TYPE_CHECKING:
    from storm_edge.runtime.config.schema import StormConfig
    from storm_edge.runtime.machine.targets import Target
    from storm_edge.runtime.plan.advice import Advice
    from storm_edge.runtime.plan.live import LivePlan
    from storm_edge.runtime.plan.planning import Plan, PlanOptions


@click.command("plan")
@click.argument("model")
@click.option("--target", "target_name", required=True, help="What to plan for; `storm doctor` lists the targets.")
@click.option("--frames", type=COUNT, default=32, show_default=True, help="Frames of a clip.")
@click.option("--precision", help="Precision of the vision tower and temporal encoder; default: the target's.")
@click.option("--llm-precision", help="Precision of the language model; default: the target's.")
@click.option("--llm", metavar="RUNNER", help="What runs the language model, where not the target's own.")
@click.option("--tp", type=COUNT, default=1, show_default=True, help="GPUs that share the language model, with --llm.")
@click.option("--sample", type=COUNT, help="Keep every N-th pooled frame; default: the model's.")
@click.option("--temporal-pool", type=COUNT, help="Frames averaged; default: the model's.")
@click.option("--spatial-pool", type=COUNT, help="Side of the averaged block; default: the model's.")
@click.option("--memory", type=COUNT, help="GB of the device, where there are several; default: the most.")
@click.option("--live", is_flag=True, help="Also what `storm watch` can do with a window of --frames.")
@click.option("--every", type=float, default=5.0, show_default=True, help="Seconds between two questions, with --live.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON: bytes, FLOPs, seconds.")
def command(
    model: str,
    target_name: str,
    frames: int,
    precision: str | None,
    llm_precision: str | None,
    llm: str | None,
    tp: int,
    sample: int | None,
    temporal_pool: int | None,
    spatial_pool: int | None,
    memory: int | None,
    live: bool,
    every: float,
    as_json: bool,
) -> None:
    """Estimate memory and time of MODEL on a target, before anything is built.

    MODEL is a checkpoint (its config.json is enough), a bundle, or a preset such as storm-7b.
    """
    from dataclasses import replace

    from storm_edge.runtime.machine.targets import target
    from storm_edge.runtime.plan.advice import advise
    from storm_edge.runtime.plan.live import live_plan
    from storm_edge.runtime.plan.planning import default_options, device_of, make_plan

    where = target(target_name)
    options = replace(
        default_options(where, frames), sample=sample, temporal_pool=temporal_pool, spatial_pool=spatial_pool
    )
    if precision:
        options = replace(options, precision=precision)
    if llm_precision:
        options = replace(options, llm_precision=llm_precision)
    device = device_of(where, memory)
    config = model_config(model)
    options = with_llm(config, where, options, llm, tp)
    plan = make_plan(config, where, device, options)
    advice = advise(config, where, device, options)
    notes = notes_of(config, where, options)
    watched = live_plan(config, plan, every) if live else None
    if as_json:
        more = {"live": watched and asdict(watched)} if live else {}
        click.echo(json.dumps(as_dict(model, plan, advice, notes) | more))
        return
    lines = [*table(model, plan), *verdict(plan, advice, where), *(live_lines(watched) if live else ())]
    for line in [*lines, *(f"note: {note}" for note in notes)]:
        echo(line)


def with_llm(config: StormConfig, where: Target, options: PlanOptions, llm: str | None, tp: int) -> PlanOptions:
    """The options with a runner of the language model and its GPUs; raises TargetError, UsageError."""
    from dataclasses import replace

    from storm_edge.export.build.tensorrt_llm.ranks import check_tensor_parallel
    from storm_edge.runtime.errors import UsageError
    from storm_edge.runtime.runners import RUNNERS

    if llm is None or llm == where.llm_runners[0]:
        if tp > 1:
            raise UsageError(f"--tp {tp} is for runners that share a model among GPUs: add --llm tensorrt-llm.")
        return options
    if llm in where.llm_choices and not RUNNERS[llm].language:
        raise UsageError(f"what {llm} takes is no part of a plan for {where.name}: leave --llm out.")
    check_tensor_parallel(config.llm, tp)
    return replace(options, llm=llm, tp=tp)


def model_config(model: str) -> StormConfig:
    """The configuration of a checkpoint, a bundle or a preset; raises UsageError where it is none."""
    from storm_edge.runtime.bundle.manifest import MANIFEST, Bundle
    from storm_edge.runtime.config.presets import PRESETS
    from storm_edge.runtime.config.schema import read_config
    from storm_edge.runtime.errors import UsageError

    path = Path(model)
    if (path / MANIFEST).is_file():
        return Bundle.open(path).config
    if path.is_dir():
        from storm_edge.export.families.recognise import family_of

        family, found = family_of(path)
        return read_config(path / "config.json") if family.name == "storm" else family.open(path, found).config
    if path.name == "config.json" and path.is_file():
        return read_config(path)
    if model not in PRESETS:
        raise UsageError(f"{model} is no checkpoint, bundle or preset: name a folder, or one of {', '.join(PRESETS)}.")
    return PRESETS[model]


def table(model: str, plan: Plan) -> list[str]:
    """What is planned, and a row for each stage."""
    options = plan.options
    device = plan.device.name if plan.device else plan.target
    lines = [
        f"{model} on {device}: {options.frames} frames, vision and temporal {options.precision},"
        f" language model {options.llm_precision}"
        + (f" by {options.llm} on {options.tp} GPU{'s' * (options.tp > 1)}" if options.llm else ""),
        f"the scan sees {plan.scan_tokens:,} tokens, the language model {plan.visual_tokens:,} of them;"
        f" KV cache for {plan.cache_length:,} positions of {plan.context:,}",
        "",
        f"{'GiB':<10}{'weights':>9}{'activations':>13}{'outputs':>9}{'KV cache':>10}{'workspace':>11}"
        f"{'TFLOP':>10}{'GB moved':>10}{'floor':>11}{'expected':>11}",
    ]
    for name, s in plan.stages.items():
        held = (
            (f"{x / 2**30:.2f}" for x in (s.weights, s.activations, s.outputs, s.kv_cache, s.workspace))
            if s.weights
            else ("", "", "", "", "")
        )
        w, a, o, k, c = held
        lines.append(
            f"{name:<10}{w:>9}{a:>13}{o:>9}{k:>10}{c:>11}{s.flops / 1e12:>10.3g}{s.bytes / 1e9:>10.3g}"
            f"{seconds(s.floor):>11}{seconds(s.expected):>11}"
        )
    return [*lines, "(decode: one token, with prefill's engine and cache)", ""]


def verdict(plan: Plan, advice: list[Advice], where: Target) -> list[str]:
    """Whether it fits, what would make it fit, and what to expect."""
    from storm_edge.runtime.plan.planning import LONGER
    from storm_edge.runtime.runners import RUNNERS

    peak = f"peak {plan.peak / 2**30:.1f} GiB"
    if plan.usable is None:
        lines = [f"{peak}; give --memory GB to compare it with a device"]
    else:
        lines = [f"{peak} of {plan.usable / 2**30:.1f} usable: " + ("fits" if plan.fits_memory else "DOES NOT FIT")]
    if not plan.fits_context:
        lines.append(f"{plan.visual_tokens:,} visual tokens DO NOT FIT into the model's {plan.context:,} positions")
    lines += [f"  fits with {a.words}: peak {a.plan.peak / 2**30:.1f} GiB{_pace(a.plan)}" for a in advice]
    if not plan.fits and not advice:
        larger = [str(d.memory) for d in where.devices if plan.device and d.memory > plan.device.memory]
        lines.append("  no option makes it fit" + (f": --memory {' or '.join(larger)} has more room" if larger else ""))
    if plan.first_token is not None:
        lines.append(f"expected{_pace(plan)}".replace(", ", " ", 1))
    else:
        lines.append("no times: the arithmetic rate of this target is not published as one figure")
    if plan.fits and RUNNERS[where.runner].device == "cuda":
        if plan.options.llm:
            tp = f" --tp {plan.options.tp}" if plan.options.tp > 1 else ""
            lines.append(f"build with --max-frames {plan.options.frames} --llm {plan.options.llm}{tp}")
            return lines
        lines.append(f"build with --max-frames {plan.options.frames}; that makes --max-length {plan.cache_length}")
        more, slower = plan.longer
        time = "" if slower is None else f" and {slower * 1e3:.2g} ms of every token"
        lines.append(f"  {LONGER:,} positions more of --max-length take {more / 2**20:.0f} MiB{time}, used or not")
    return lines


def live_lines(live: LivePlan | None) -> list[str]:
    """What to expect of a live video."""
    from storm_edge.runtime.plan.live import ANSWER

    if live is None:
        return ["live: no times"]
    lines = [
        f"live: {live.fps_unasked:.1f} frames a second while nobody asks ({seconds(live.look)} each); from a question"
        f" about the last {live.frames} to its first word {seconds(live.first_token)}, when the newest frame is"
        f" {seconds(live.oldest)} old",
    ]
    if live.fps:
        lines.append(f"  asked every {live.every:g} s, with {ANSWER} tokens an answer: {live.fps:.1f} frames a second")
    else:
        lines.append(
            f"  an answer of {ANSWER} tokens takes {seconds(live.answer)}, longer than --every {live.every:g}: no time"
            " is left for frames"
        )
    return lines


def _pace(plan: Plan) -> str:
    decode = plan.stages["decode"].expected
    if plan.first_token is None or decode is None:
        return ""
    return f", first word {seconds(plan.first_token)} after the frames, then {1 / decode:.1f} tokens a second"


def seconds(value: float | None) -> str:
    """A time with the unit that suits it; `-` where it is not known."""
    if value is None:
        return "-"
    return f"{value * 1e3:.1f} ms" if value < 0.1 else f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.1f} s"


def notes_of(config: StormConfig, where: Target, options: PlanOptions) -> list[str]:
    """What the figures do not hold for."""
    from storm_edge.runtime.plan.memory import unfused_attention

    notes = []
    llm_status = where.chosen_status(options.llm) if options.llm else where.llm_status
    missing = [
        f"{option} {precision}"
        for option, precision, status in (
            ("--precision", options.precision, where.status),
            ("--llm-precision", options.llm_precision, llm_status),
        )
        if precision not in status
    ]
    if missing:
        notes.append(f"this version does not build {' nor '.join(missing)} for {where.name} yet")
    old = [r for r in where.releases if not r.llm_tensorrt]
    if old and options.llm_precision != "int4":
        notes.append(f"{old[0].name} runs the language model with --llm-precision int4 only, on ONNX Runtime CUDA")
    if old:
        more = unfused_attention(config) / 2**30
        notes.append(
            f"on {old[0].name} vision may take {more:.1f} GiB more: whether TensorRT {old[0].tensorrt} fuses its"
            " attention is unknown"
        )
    if options.tp > 1:
        notes.append("memory and times are those of the first GPU, without what the GPUs tell each other")
    if where.devices:
        notes.append("expected times assume the share of the peak that the paper's A100 reached; see docs/plan.md")
    return notes


def as_dict(model: str, plan: Plan, advice: list[Advice], notes: list[str]) -> dict[str, Any]:
    """The whole plan, ready for JSON."""
    return asdict(plan) | {
        "model": model,
        "peak": plan.peak,
        "fits_memory": plan.fits_memory,
        "fits_context": plan.fits_context,
        "fits": plan.fits,
        "first_token": plan.first_token,
        "advice": [
            {
                "words": a.words,
                "options": asdict(a.plan.options),
                "peak": a.plan.peak,
                "first_token": a.plan.first_token,
            }
            for a in advice
        ],
        "notes": notes,
    }

"""`storm calibrate`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import click

from storm_edge.calibration.methods import MIN_FRAMES, MIN_SAMPLES, Method
from storm_edge.cli.data import Demo, Folder, data_of
from storm_edge.cli.options import threads_option
from storm_edge.cli.progress import progress, say
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.proof.advice import BUDGET

if TYPE_CHECKING:
    from storm_edge.calibration.analysis import Analysis, Asked
    from storm_edge.calibration.counting import Clips
    from storm_edge.calibration.smoothquant import SmoothQuant

FRAMES = 16  # of a clip
_AUTO = "auto"
_ENGINES = {"uint8": "CPU int8", "int8": "TensorRT int8", "fp8": "fp8"}
_REST = "the rest stays in floating point, so that verification passes (layers.json)"


@click.command("calibrate")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="`demo`, or a folder with videos, or images, like those it will be shown.")
@click.option(
    "--samples",
    type=click.IntRange(1),
    default=256,
    show_default=True,
    help=f"Clips to look at: at least {MIN_SAMPLES}, in which {MIN_FRAMES} frames differ.",
)
@click.option("--frames", type=click.IntRange(1), default=FRAMES, show_default=True, help="Frames of a clip.")
@click.option(
    "--method", type=click.Choice(get_args(Method)), default="minmax", show_default=True, help="Where to cut outliers."
)
@click.option(
    "--smooth",
    metavar="[ALPHA]",
    is_flag=False,
    flag_value=_AUTO,
    help="Move outlier channels into the weights where that helps; ALPHA: how far, 0 to 1; default: tries several.",
)
@click.option("--analyze", is_flag=True, help="Rank the layers by what quantizing each alone costs; writes a picture.")
@click.option(
    "--max-loss",
    metavar="LOSS|auto",
    help="With --analyze: quantize the most that costs no more; auto: that `storm verify` accepts, and name its cost.",
)
@click.option(
    "--budget",
    type=click.FloatRange(0, min_open=True),
    default=BUDGET,
    show_default=True,
    help="Share of what `storm verify` allows that int8 or fp8 may use up; the layers beyond stay in floating point.",
)
@click.option(
    "--precision", type=click.Choice(["int8", "fp8"]), help="With --analyze: what to measure [default: int8]."
)
@click.option("--questions", type=click.IntRange(1), help="With --analyze: measure the answers to so many questions.")
@click.option("--awq", is_flag=True, help="Scale the language model's weights by what they multiply, for int4.")
@click.option("--llm", is_flag=True, help="Observe the language model too, as --llm-precision fp8 needs.")
@click.option("--name", help="What to call it in the bundle; default: demo, or the folder's name.")
@threads_option()
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def command(ctx: click.Context, /, bundle: Path, data: str, frames: int, name: str | None, **options: Any) -> None:
    """Observe what real frames do inside BUNDLE's vision and temporal graphs, as int8 and fp8 engines need.

    A run that was stopped goes on where it was when it is repeated. The loss that --analyze measures is the relative
    error of the visual tokens, or with --questions the divergence of the answers in nats.
    """
    _check(options)
    from storm_edge.calibration.awq import Awq
    from storm_edge.calibration.calibrate import SENSITIVITY, calibrate
    from storm_edge.calibration.language import Language
    from storm_edge.runtime.bundle.calibration import REPORT
    from storm_edge.runtime.bundle.manifest import Bundle

    opened = Bundle.open(bundle)
    size = opened.config.vision.image_size
    source = data_of(data)
    clips = source.clips(options["samples"], frames, size)
    with progress(ctx, "calibrate") as step:
        folder = calibrate(
            opened,
            clips,
            name or source.name,
            samples=options["samples"],
            method=options["method"],
            smoothquant=_smoothquant(options["smooth"]),
            analysis=_analysis(source, frames, size, options),
            awq=Awq(_prompts(source, frames, size, clips)) if options["awq"] else None,
            language=Language(_prompts(source, frames, size, clips)) if options["llm"] else None,
            budget=options["budget"],
            threads=options["threads"],
            progress=step,
            detail=step.detail,
        )
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    if options["analyze"]:
        report["sensitivity"] = json.loads((folder / SENSITIVITY).read_text(encoding="utf-8"))
    if options["as_json"]:
        click.echo(json.dumps({"calibration": folder.name} | report | {"seconds": step.seconds}))
    else:
        for line in _lines(folder, report, options["max_loss"]):
            say(ctx, line)


def _check(options: dict[str, Any]) -> None:
    """Refuse words of --analyze without it, a loss and an alpha that are none."""
    for name in ("max_loss", "precision", "questions"):
        if options[name] is not None and not options["analyze"]:
            raise UsageError(f"--{name.replace('_', '-')} says how to analyze: give --analyze as well.")
    _max_loss(options["max_loss"])
    _smoothquant(options["smooth"])


def _max_loss(given: str | None) -> float | Literal["auto"] | None:
    if given is None or given == "auto":
        return given  # type: ignore[return-value] # a literal
    try:
        loss = float(given)
    except ValueError:
        loss = -1.0
    if not loss >= 0:
        raise UsageError(f"--max-loss {given} is no loss: give a number from 0 on, or auto.")
    return loss


def _smoothquant(given: str | None) -> SmoothQuant | None:
    from storm_edge.calibration.smoothquant import SmoothQuant

    if given is None or given == _AUTO:
        return None if given is None else SmoothQuant()
    try:
        alpha = float(given)
    except ValueError:
        alpha = -1.0
    if not 0 <= alpha <= 1:
        raise UsageError(f"--smooth {given} is no number from 0 to 1: leave the number out to try several.")
    return SmoothQuant(alpha)


def _analysis(source: Demo | Folder, frames: int, size: int, options: dict[str, Any]) -> Analysis | None:
    if not options["analyze"]:
        return None
    from storm_edge.calibration.analysis import Analysis

    how: dict[str, Any] = {"scheme": options["precision"] or "int8", "max_loss": _max_loss(options["max_loss"])}
    if options["questions"] is not None:
        how |= {"clips": options["questions"], "asked": source.asked(frames, size)}
    return Analysis(**how)


def _prompts(source: Demo | Folder, frames: int, size: int, clips: Clips) -> Asked:
    """The data's questions; a folder without questions is asked one that fits every video."""
    from storm_edge.calibration.language import describe_all

    return source.asked(frames, size) if source.has_questions else describe_all(clips)


def _lines(folder: Path, report: dict[str, Any], asked: str | None) -> Iterator[str]:
    """What a person wants to know of a calibration."""
    worst = min(report["tensors"], key=lambda tensor: report["tensors"][tensor]["int8_snr_db"])
    yield (
        f"{folder}: {len(report['tensors'])} tensors in {report['samples']} clips, {report['frames']} different frames;"
        f" hardest in int8: {worst}, whose rounding noise is {report['tensors'][worst]['int8_snr_db']} dB below it."
    )
    if smoothing := report.get("smoothing"):
        of = sum(norm["alpha"] is not None for norm in smoothing["norms"])
        done = f"{of} of {len(smoothing['norms'])} norms smoothed" if smoothing["used"] else "nothing smoothed"
        yield (
            f"{done}: all layers in int8 put the visual tokens {smoothing['error_without']:.2%} off without smoothing,"
            f" {smoothing['error_with']:.2%} with it."
        )
    if scaling := report.get("scaling"):
        of = sum(group["alpha"] is not None for group in scaling["groups"])
        done = f"{of} of {len(scaling['groups'])} groups of layers scaled" if scaling["used"] else "nothing scaled"
        yield (
            f"language model, {done}: int4 weights put the answers {scaling['divergence_without']:.3g} nats off without"
            f" scaling, {scaling['divergence_with']:.3g} with it."
        )
    if found := report.get("sensitivity"):
        kept = [layer["module"] for layer in found["layers"] if not layer["quantize"]]
        last = found["layers"][-1]
        yield (
            f"{len(found['layers']) - len(kept)} of {len(found['layers'])} layers quantized,"
            f" {found['chosen_share']:.1%} of the multiplications: {found['loss']} {found['chosen_loss']:.3g};"
            f" most for its work costs {last['module']}, {last['loss']:.3g} alone (sensitivity.png shows all)."
        )
        if kept:
            yield f"left in floating point: {', '.join(kept)}"
        if asked == _AUTO:
            yield f"the most that verification accepts is --max-loss {found['max_loss']:.4g}"
    if quantized := report.get("quantized"):
        parts = ", ".join(f"{engine} {_of_scheme(quantized[scheme])}" for scheme, engine in _ENGINES.items())
        rest = "" if all(x["answers"] for x in quantized.values()) else "; answers were not measured: too little memory"
        yield f"quantized, of the encoders' multiplications: {parts}; {_REST}{rest}."


def _of_scheme(found: dict[str, Any]) -> str:
    if not found["layers"]:
        return "none, for verification accepts none"
    return f"{found['multiplications']:.1%} ({found['layers']} of {found['of']} layers)"

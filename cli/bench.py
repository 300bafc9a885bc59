"""`storm bench`."""

from __future__ import annotations

import json
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from storm_edge.cli.options import COUNT, threads_option
from storm_edge.cli.printing import echo
from storm_edge.cli.progress import progress

if TYPE_CHECKING:
    from storm_edge.runtime.answer.pipeline import Pipeline
    from storm_edge.runtime.bench.measuring import Ask

DEFAULT_FRAMES = (8, 32, 128)
TORCH = "PyTorch"
CLIP_FPS, CLIP_SIDE = 8, 512  # of the video that is made where none is given
_ROWS = ("video decode", "vision", "temporal", "prefill", "decode")


def counts_of(ctx: click.Context, option: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """ "32,8" -> (8, 32)."""
    if value is None:
        return None
    return tuple(sorted({COUNT(part.strip(), option, ctx) for part in value.split(",")}))


@click.command("bench")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option(
    "--frames",
    metavar="N,...",
    callback=counts_of,
    help="Lengths of clips; default: those of 8,32,128 that the engine holds.",
)
@click.option("--engine", help="Engine to measure; default: the newest verified one for this machine.")
@click.option("--trust-engines", is_flag=True, help="Also run an engine that was not built by you on this machine.")
@click.option("--video", type=click.Path(path_type=Path), help="Video to ask about; default: one of the demo's.")
@click.option("--sample", type=COUNT, help="Keep every N-th pooled frame.")
@click.option("--tokens", type=COUNT, default=32, show_default=True, help="Length of an answer.")
@click.option("--repeats", type=COUNT, default=3, show_default=True, help="Runs that count, after one that warms up.")
@click.option("--against", type=click.Choice(["torch"]), help="Also ask PyTorch and transformers, by turns.")
@click.option("--checkpoint", type=click.Path(path_type=Path), help="What BUNDLE was exported from, for --against.")
@click.option("--plot", type=click.Path(path_type=Path, dir_okay=False), help="Draw the seconds by stage: a PNG.")
@threads_option()
@click.option("--json", "as_json", is_flag=True, help="Print every figure as JSON; docs/bench.md names them.")
@click.pass_context
def command(
    ctx: click.Context,
    bundle: Path,
    frames: tuple[int, ...] | None,
    engine: str | None,
    trust_engines: bool,
    video: Path | None,
    sample: int | None,
    tokens: int,
    repeats: int,
    against: str | None,
    checkpoint: Path | None,
    plot: Path | None,
    threads: int | None,
    as_json: bool,
) -> None:
    """Measure where the time of a question goes, beside what this machine can do at most."""
    from storm_edge.runtime.answer.budget import Budget
    from storm_edge.runtime.answer.pipeline import load
    from storm_edge.runtime.bench import SCHEMA, ask_engine, clip_report, measure, measure_limits, peer_report
    from storm_edge.runtime.bench.peer import Peer
    from storm_edge.runtime.bench.plot import draw, require_matplotlib
    from storm_edge.runtime.errors import UsageError
    from storm_edge.runtime.machine.doctor import examine
    from storm_edge.runtime.machine.energy import open_meter
    from storm_edge.runtime.machine.probe import probe

    if (against is None) != (checkpoint is None):
        raise UsageError("--against torch and --checkpoint DIR go together: PyTorch reads the checkpoint.")
    if plot is not None:
        require_matplotlib()
    with progress(ctx, "bench") as step, ExitStack() as stack:
        step("load")
        pipeline = load(bundle, engine, threads=threads, trust_engines=trust_engines, progress=step.detail)
        counts = frames or held(pipeline, sample)
        config = pipeline.bundle.config
        Budget.of(config, pipeline.stages, sample or config.reduction.sample).check(max(counts))
        step("limits of this machine")
        limits = measure_limits(pipeline.stages.device, threads)
        if video is None:
            step("demo video")
            video = demo_video(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "clip.mp4", max(counts))
        asked: dict[str, Ask] = {"engine": partial(ask_engine, pipeline, video, tokens, sample=sample)}
        if checkpoint is not None:
            step("load PyTorch")
            words = {"--sample": sample, "--tokens": tokens, "--threads": threads}
            asked[TORCH] = stack.enter_context(Peer(TORCH, torch_command(pipeline, checkpoint, video, words))).ask
        meter = open_meter(probe())
        if meter is not None:
            stack.callback(meter.close)
        clips, peers = [], []
        for count in counts:
            runs = measure(asked, count, repeats, meter, step)
            clips.append(clip_report(pipeline.bundle.config, pipeline.engine, limits, count, runs["engine"]))
            if TORCH in runs:
                peers.append(peer_report(runs[TORCH]))
    processor = examine()["machine"]["processor"]
    if plot is not None:
        draw(clips, f"{pipeline.engine.name} on {processor}", plot, {TORCH: peers} if peers else {})
    if as_json:
        about = {"schema": SCHEMA, "engine": pipeline.engine.name, "processor": processor, "threads": threads}
        about |= {"energy": None if meter is None else meter.source}
        report = about | {"limits": asdict(limits), "clips": clips}
        click.echo(json.dumps(report | ({"against": {"torch": peers}} if peers else {})))
        return
    rates = limits.flops_per_second
    echo(f"engine {pipeline.engine.name} on {processor}")
    echo(
        f"this machine at most: {rates['fp32'] / 1e9:.0f} GFLOP/s in fp32, {rates['int8'] / 1e9:.0f} in int8,"
        f" {limits.bytes_per_second / 1e9:.1f} GB/s copied, {limits.exponentials_per_second / 1e9:.2f} G exponentials/s"
    )
    for i, clip in enumerate(clips):
        for line in table(clip, peers[i] if peers else None):
            echo(line)


def held(pipeline: Pipeline, sample: int | None) -> tuple[int, ...]:
    """Those of DEFAULT_FRAMES whose tokens the language model holds; the first of them in any case."""
    config, room = pipeline.bundle.config, pipeline.stages.generator.capacity
    fitting = [n for n in DEFAULT_FRAMES if config.visual_tokens(n, sample or config.reduction.sample) < room // 2]
    return tuple(fitting) or DEFAULT_FRAMES[:1]


def torch_command(pipeline: Pipeline, checkpoint: Path, video: Path, options: dict[str, int | None]) -> list[str]:
    """What asks PyTorch the same."""
    reduction = pipeline.bundle.config.reduction
    given = {"--sample": reduction.sample} | {name: value for name, value in options.items() if value is not None}
    given |= {"--temporal-pool": reduction.temporal_pool, "--spatial-pool": reduction.spatial_pool}
    words = [str(word) for pair in given.items() for word in pair]
    module = "storm_edge.export.reference.asking"
    return [sys.executable, "-m", module, str(checkpoint), "--video", str(video), *words]


def demo_video(path: Path, frames: int) -> Path:
    """A clip of the demo's with as many frames, a square of CLIP_SIDE pixels in H.264."""
    from storm_edge.demo.dataset import MIN_FRAMES, make_sample
    from storm_edge.runtime.video.encode import encode_video

    whole, rest = divmod(max(frames, MIN_FRAMES), DEFAULT_FRAMES[1])
    lengths = [DEFAULT_FRAMES[1]] * whole + [max(rest, MIN_FRAMES)] * bool(rest)
    pieces = (make_sample(seed, frames=n, size=CLIP_SIDE).frames for seed, n in enumerate(lengths))
    encode_video(path, (frame for piece in pieces for frame in piece), fps=CLIP_FPS)
    return path


def table(clip: dict[str, Any], peer: dict[str, Any] | None) -> list[str]:
    """What a person reads of a clip."""
    kept = f"{clip['tokens']:,} tokens, of which the language model sees {clip['visual_tokens']:,}"
    memory = f"peak {clip['peak_memory_bytes'] / 2**20:,.0f} MiB"
    if clip["peak_device_bytes"]:
        memory += f" and {clip['peak_device_bytes'] / 2**20:,.0f} MiB of the GPU"
    energy = f", {clip['joules']:.1f} J a question" if "joules" in clip else ""
    lines = ["", f"{clip['frames']} frames: {kept}; {memory}{energy}"]
    beside = f"{'PyTorch':>12}" if peer else ""
    lines.append(f"{'':<22}{'median':>11}{'least':>11}{'most':>11}{'GFLOP/s':>10}{'GB/s':>8}{'of limit':>10}{beside}")
    for name in _ROWS:
        if name in clip:
            words = "decode, each token" if name == "decode" else name
            lines.append(_row(words, clip[name], peer and peer.get(name)))
    for key, words in (
        ("first_token_seconds", "first token"),
        ("second_question_seconds", "second question"),
        ("total_seconds", f"all {clip['answer_tokens']} tokens"),
    ):
        lines.append(_row(words, {"seconds": clip[key]}, peer and {"seconds": peer[key]}))
    return [*lines, f"(warm-up, not counted: {_seconds(clip['warm_up_seconds'])})"]


def _row(words: str, stage: dict[str, Any], peer: dict[str, Any] | None) -> str:
    seconds = "".join(f"{_seconds(stage['seconds'][key]):>11}" for key in ("median", "least", "most"))
    reached = " " * 28
    if "flops_per_second" in stage:
        share = stage["share_of_limit"]
        reached = f"{stage['flops_per_second'] / 1e9:>10.1f}{stage['bytes_per_second'] / 1e9:>8.1f}"
        reached += f"{'' if share is None else f'{share:.0%}':>10}"
    beside = f"{_seconds(peer['seconds']['median']):>12}" if peer else ""
    return f"{words:<22}{seconds}{reached}{beside}".rstrip()


def _seconds(value: float) -> str:
    return f"{value * 1e3:.1f} ms" if value < 0.1 else f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.2f} s"

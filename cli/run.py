"""`storm run`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from storm_edge.cli.options import threads_option, video_options
from storm_edge.cli.printing import answer as print_answer
from storm_edge.cli.printing import echo
from storm_edge.cli.progress import progress

_DECODER = "What decodes a video file: the processor, or the GPU, for engines whose vision runs there."


@click.command("run")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("video", type=str)
@click.argument("prompt")
@click.option("--engine", help="Engine to run; default: the newest verified one for this machine.")
@click.option("--trust-engines", is_flag=True, help="Also run an engine that was not built by you on this machine.")
@click.option("--no-check", is_flag=True, help="Do not hash files that were not read on this machine before.")
@click.option("--frames", type=int, help="Frames to look at, spread evenly; default: at most 32.")
@click.option("--fps", type=float, help="Frames a second to look at, instead of --frames.")
@click.option("--sample", type=int, help="Keep every N-th pooled frame.")
@click.option("--times/--no-times", default=None, help="Say when the frames are; default: as the model was trained.")
@video_options
@click.option("--decoder", type=click.Choice(["pyav", "nvdec"]), default="pyav", show_default=True, help=_DECODER)
@click.option("--max-tokens", type=int, default=256, show_default=True, help="Length limit of the answer.")
@click.option("--temperature", type=float, default=0.0, show_default=True, help="0 always takes the likeliest token.")
@click.option("--top-k", type=int, default=0, help="Draw among the K likeliest tokens only.")
@click.option("--top-p", type=float, default=1.0, help="Draw among the likeliest tokens of this total probability.")
@click.option("--repetition-penalty", type=float, default=1.0, help="Above 1 discourages repeating tokens.")
@click.option("--seed", type=int, help="Seed of the draw.")
@click.option("--stop", multiple=True, help="End the answer before this text; may be repeated.")
@threads_option()
@click.option("--json", "as_json", is_flag=True, help="Print answer, timestamps, counts and timings as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    bundle: Path,
    video: str,
    prompt: str,
    engine: str | None,
    trust_engines: bool,
    no_check: bool,
    frames: int | None,
    fps: float | None,
    sample: int | None,
    times: bool | None,
    snap: float | None,
    skip_still: int,
    decoder: str,
    max_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    repetition_penalty: float,
    seed: int | None,
    stop: tuple[str, ...],
    threads: int | None,
    as_json: bool,
) -> None:
    """Answer PROMPT about VIDEO, a file or a folder of images, with an engine of BUNDLE."""
    from storm_edge.runtime.answer.pipeline import load
    from storm_edge.runtime.llm.sampling import SamplingOptions

    options = SamplingOptions(
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
        stop=stop,
        max_tokens=max_tokens,
    )
    with progress(ctx, "run") as step:
        step("load")
        pipeline = load(
            bundle, engine, threads=threads, check=not no_check, trust_engines=trust_engines, progress=step.detail
        )
        if times is not None:
            pipeline.times = times
        step("encode video")
        opened = pipeline.open(
            video, frames=frames, fps=fps, sample=sample, snap=snap, skip_still=skip_still, decoder=decoder
        )
        step("prefill")
        answer = opened.ask(prompt, options)
    if as_json:
        text = answer.read()
        result = {"engine": pipeline.engine.name, "answer": text, "timestamps": opened.timestamps.tolist()}
        result |= vars(answer.stats) | {"seconds": {"load": step.seconds["load"]} | answer.stats.seconds}
        click.echo(json.dumps(result))
        return
    for piece in answer:
        print_answer(piece)
    echo()
    if not ctx.obj["quiet"]:
        echo(_summary(pipeline.engine.name, vars(answer.stats)), err=True)


def _summary(engine: str, stats: dict[str, object]) -> str:
    seconds = stats["seconds"]
    assert isinstance(seconds, dict)
    stages = ", ".join(f"{stage} {1000 * value:.0f} ms" for stage, value in seconds.items())
    still = f" ({stats['reused_frames']} still)" if stats["reused_frames"] else ""
    memory, device = stats["peak_memory_bytes"], stats["peak_device_bytes"]
    assert isinstance(memory, int)
    assert isinstance(device, int)
    on_gpu = f" and {device / 2**20:.0f} MiB of the GPU" if device else ""
    return (
        f"[{engine}: {stats['frames']} frames{still}, {stats['visual_tokens']} visual tokens,"
        f" {stats['prompt_tokens']} prompt tokens, {stats['answer_tokens']} answer tokens; {stages};"
        f" peak {memory / 2**20:.0f} MiB{on_gpu}]"
    )

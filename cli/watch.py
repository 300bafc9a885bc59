"""`storm watch`."""

from __future__ import annotations

import json
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from storm_edge.cli.options import COUNT, threads_option
from storm_edge.cli.printing import echo
from storm_edge.cli.progress import progress
from storm_edge.runtime.errors import UsageError

if TYPE_CHECKING:
    from storm_edge.cli.recording import Recorder
    from storm_edge.runtime.answer.watch import Moment, Watch
    from storm_edge.runtime.llm.sampling import SamplingOptions

_NOTICE = 0.2  # seconds between two looks at the state of the source


@click.command("watch")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("source", type=str)
@click.argument("prompt")
@click.option("--every", type=click.FloatRange(0.0, min_open=True), default=5.0, show_default=True, help="Seconds.")
@click.option("--fps", type=float, default=2.0, show_default=True, help="Frames a second to look at.")
@click.option("--window", default="64", show_default=True, help="Last frames to answer about, or seconds: 32s.")
@click.option("--follow", is_flag=True, help="SOURCE is a file that is still being written: wait for more at its end.")
@click.option("--when-changes", is_flag=True, help="Print an answer only where it differs from the one before.")
@click.option("--count", type=COUNT, help="End after so many answers.")
@click.option(
    "--record",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Keep clip and contact sheet of every answer that changed.",
)
@click.option("--engine", help="Engine to run; default: the newest verified one for this machine.")
@click.option("--trust-engines", is_flag=True, help="Also run an engine that was not built by you on this machine.")
@click.option("--no-check", is_flag=True, help="Do not hash files that were not read on this machine before.")
@click.option("--sample", type=int, help="Keep every N-th pooled frame.")
@click.option("--max-tokens", type=int, default=64, show_default=True, help="Length limit of an answer.")
@threads_option()
@click.option("--json", "as_json", is_flag=True, help="Print every answer as a line of JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    bundle: Path,
    source: str,
    prompt: str,
    every: float,
    fps: float,
    window: str,
    follow: bool,
    when_changes: bool,
    count: int | None,
    record: Path | None,
    engine: str | None,
    trust_engines: bool,
    no_check: bool,
    sample: int | None,
    max_tokens: int,
    threads: int | None,
    as_json: bool,
) -> None:
    """Answer PROMPT about the last frames of SOURCE again and again: a URL (rtsp, rtmp, http, udp), a camera's
    device, a folder that gets images, a file to be played, or - for a stream on standard input.
    """
    frames = _window(window, fps)
    from storm_edge.runtime.answer.pipeline import load
    from storm_edge.runtime.llm.sampling import SamplingOptions

    options, recorder = SamplingOptions(max_tokens=max_tokens), _recorder(record)
    with progress(ctx, "watch") as step:
        step("load")
        pipeline = load(
            bundle, engine, threads=threads, check=not no_check, trust_engines=trust_engines, progress=step.detail
        )
    last: object = None
    pictures = recorder is not None
    with pipeline.watch(source, fps=fps, window=frames, sample=sample, follow=follow, pictures=pictures) as watch:
        asked, due = 0, time.monotonic()
        while asked != count and _awaited(watch, due, quiet=ctx.obj["quiet"]):
            line, moment = _asked(watch, prompt, options)
            asked, due = asked + 1, max(due + every, time.monotonic())
            changed, last = line["answer"] != last, line["answer"]
            if changed or not when_changes:
                _tell(line, as_json)
            if changed and recorder is not None:
                _keep(recorder, line, moment)
            if line["ended"]:
                return


def _recorder(folder: Path | None) -> Recorder | None:
    if folder is None:
        return None
    from storm_edge.cli.recording import Recorder

    return Recorder(folder)


def _keep(recorder: Recorder, line: dict[str, object], moment: Moment) -> None:
    """A full disk does not end the watch: what it says goes on."""
    try:
        recorder.keep(line, moment)
    except UsageError as error:
        echo(f"not recorded: {error}", err=True)


def _window(text: str, fps: float) -> int:
    seconds = text.endswith("s")
    try:
        value = float(text.removesuffix("s")) * (fps if seconds else 1)
        frames = round(value) if seconds else int(text)
    except (ValueError, OverflowError) as error:
        raise click.BadParameter(f"{text!r} is no window: give frames (64) or seconds (32s)") from error
    if frames < 1:
        raise click.BadParameter(f"{text!r} is no window: give one frame or more")
    return frames


def _awaited(watch: Watch, due: float, *, quiet: bool) -> bool:
    """Wait until there are frames and the next question is due, or the source is over; whether there is one to ask."""
    told = ""
    while not (watch.ended or (watch.wait(timeout=_NOTICE) and time.monotonic() >= due)):
        if watch.lost != told and not quiet:
            told = watch.lost
            echo(told or "frames come again", err=True)
        time.sleep(max(min(due - time.monotonic(), _NOTICE), 0))
    if not watch.wait(timeout=0) and not quiet:
        echo("the source had no frames", err=True)
    return watch.wait(timeout=0)


def _asked(watch: Watch, prompt: str, options: SamplingOptions) -> tuple[dict[str, object], Moment]:
    begun = time.monotonic()
    answer, moment = watch.ask(prompt, options)
    next(iter(answer), None)
    latency = moment.age + time.monotonic() - begun
    line = {
        "wall_time": datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        "timestamps": moment.timestamps.tolist(),
        "stream_time": float(moment.timestamps[-1]),
        "answer": answer.read(),
        "frames": len(moment.timestamps),
        "seen": moment.seen,
        "dropped": moment.dropped,
        "age": moment.age,
        "latency": latency,
        "lost": moment.lost,
        "ended": moment.ended,
    }
    return line, moment


def _tell(line: dict[str, object], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(line))
        return
    text = " ".join(str(line["answer"]).split())
    echo(
        f"{line['wall_time']}  at {line['stream_time']:.2f} s  seen {line['seen']}, dropped {line['dropped']}"
        f"  {line['latency']:.2f} s  {text}"
    )

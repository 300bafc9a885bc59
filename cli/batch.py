"""`storm batch`."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from storm_edge.cli.options import COUNT, threads_option, video_options
from storm_edge.cli.printing import echo
from storm_edge.cli.progress import progress

if TYPE_CHECKING:
    from storm_edge.batch.run import Progress
    from storm_edge.batch.store import Store

_EVERY = 30.0  # seconds between two lines where no terminal shows the progress


@click.command("batch")
@click.argument("bundle", type=str)
@click.option(
    "--videos", help="A folder, a pattern, a list (.txt), a table (.jsonl, .parquet) or one video; paths or URLs."
)
@click.option("--questions", multiple=True, help="Text, a .txt file of them, or a column of the table; repeatable.")
@click.option("-o", "--output", help="Folder or URL of the results; run again to go on from what is there.")
@click.option("--engine", help="Engine to run; default: the newest verified one for this machine.")
@click.option("--trust-engines", is_flag=True, help="Also run an engine that was not built by you on this machine.")
@click.option("--frames", type=COUNT, help="Frames to look at, spread evenly; default: at most 32.")
@click.option("--fps", type=float, help="Frames a second to look at, instead of --frames.")
@video_options
@click.option("--sample", type=COUNT, help="Keep every N-th pooled frame.")
@click.option("--max-tokens", type=COUNT, default=256, show_default=True, help="Length limit of an answer.")
@click.option("--workers", type=click.IntRange(1, 256), help="Processes; default: one a core, as memory allows.")
@threads_option("CPU threads of a worker; default: the cores divided among them.")
@click.option("--ray", metavar="auto|ADDRESS", help="Answer on a Ray cluster: the one that runs, or one at an address.")
@click.option(
    "--format", "form", type=click.Choice(["parquet", "jsonl"]), default="parquet", show_default=True, help="Of parts."
)
@click.option("--max-errors", type=click.IntRange(0), help="End the run when more rows than this have an error.")
@click.option("--json-schema", is_flag=True, help="Print what a row looks like as JSON Schema, and do nothing else.")
@click.pass_context
def command(
    ctx: click.Context,
    bundle: str,
    videos: str | None,
    questions: tuple[str, ...],
    output: str | None,
    engine: str | None,
    trust_engines: bool,
    frames: int | None,
    fps: float | None,
    snap: float | None,
    skip_still: int,
    sample: int | None,
    max_tokens: int,
    workers: int | None,
    threads: int | None,
    ray: str | None,
    form: str,
    max_errors: int | None,
    json_schema: bool,
) -> None:
    """Ask questions about a library of videos with an engine of BUNDLE.

    Every question of every video becomes a row of OUTPUT, a failed one with its error. Run the same command again after
    it was stopped, or when videos were added: only what has no row is asked.
    """
    _need_packages(ray)
    from storm_edge.batch.library import read_library
    from storm_edge.batch.predictor import Asking
    from storm_edge.batch.rows import json_schema as schema
    from storm_edge.batch.run import Where, about, engine_of, run
    from storm_edge.batch.store import Store
    from storm_edge.runtime.errors import UsageError

    if json_schema:
        click.echo(json.dumps(schema(), indent=1))
        return
    if not videos or not output:
        raise UsageError("a run needs --videos, --questions and -o: see `storm batch --help`.")
    if frames is not None and fps is not None:
        raise UsageError("--frames and --fps exclude each other: give one of them.")
    if ray is not None and "://" not in bundle:
        bundle = absolute(bundle)  # where workers find it, whose folder is another
    asking = Asking(bundle, engine, frames, fps, snap, skip_still, sample, max_tokens, threads, trust_engines)
    with progress(ctx, "batch") as step:
        step("list videos")
        items = read_library(videos, questions)
        if ray is not None:
            items = [replace(i, location=absolute(i.location)) for i in items]
        step("check the engine")
        held, record = engine_of(asking)
        step("answer")
        lines = _Lines(quiet=ctx.obj["quiet"], detail=step.detail)
        with Store(output, about(asking, held, record), form) as store:
            done = run(asking, items, store, Where(workers, ray), max_errors=max_errors, tell=lines)
    if not ctx.obj["quiet"]:
        for line in summary(done, store):
            echo(line)


def absolute(name: str) -> str:
    """A path from the root on; a URL as it is."""
    return name if "://" in name else str(Path(name).absolute())


class _Lines:
    """Progress: beside the spinner of a terminal, else a line now and then."""

    def __init__(self, *, quiet: bool, detail: object) -> None:
        self._detail, self._silent, self._last = detail, quiet or sys.stderr.isatty(), time.monotonic()

    def __call__(self, progress: Progress) -> None:
        words = progress_line(progress)
        self._detail(words)  # type: ignore[operator]
        if not self._silent and time.monotonic() - self._last > _EVERY:
            self._last = time.monotonic()
            echo(words, err=True)


def progress_line(progress: Progress) -> str:
    """How many videos are done, how fast, and how long it will take."""
    rate = progress.done / progress.wall if progress.wall > 0 else 0.0
    left = "" if progress.left is None else f", {_time(progress.left)} left"
    errors = f", {progress.errors} errors" if progress.errors else ""
    return f"{progress.done} of {progress.videos} videos, {rate:.2f} a second{left}{errors}"


def summary(progress: Progress, store: Store) -> list[str]:
    """What the run did, as a table."""
    if not progress.videos:
        return [f"nothing is missing: {store.out} has {store.rows} rows, {store.errors} of them errors"]
    lines = [
        f"{progress.rows} rows of {progress.done} videos in {_time(progress.wall)}"
        f" ({progress.done / max(progress.wall, 1e-9):.2f} videos a second); {store.out} has {store.rows} rows"
    ]
    answered = progress.rows - progress.errors
    lines.append(f"{'answered':<24}{answered:>10}")
    lines.append(f"{'errors':<24}{progress.errors:>10}")
    lines += [f"{f'{stage}, s':<24}{seconds:>10.1f}" for stage, seconds in progress.seconds.items()]
    common = sorted(progress.reasons.items(), key=lambda pair: -pair[1])[:5]
    return [*lines, *(f"{count} x {words}" for words, count in common)]


def _time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _need_packages(ray: str | None) -> None:
    from importlib.util import find_spec

    from storm_edge.runtime.errors import UsageError

    wanted = {"batch": ("fsspec", "pyarrow"), **({"ray": ("ray",)} if ray is not None else {})}
    for extra, modules in wanted.items():
        for module in modules:
            if find_spec(module) is None:
                raise UsageError(f"storm batch needs {module}: pip install 'storm-edge[{extra}]'.")

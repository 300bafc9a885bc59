"""`storm calibrate`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import click

from storm_edge.calibration.methods import Method
from storm_edge.cli.progress import progress, say

if TYPE_CHECKING:
    from storm_edge.calibration.calibrate import Clips, Frames

FRAMES = 16  # of a clip


@click.command("calibrate")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="`demo`, or a folder with videos, or images, like those it will be shown.")
@click.option("--samples", type=click.IntRange(1), default=256, show_default=True, help="Clips to look at.")
@click.option("--frames", type=click.IntRange(1), default=FRAMES, show_default=True, help="Frames of a clip.")
@click.option(
    "--method", type=click.Choice(get_args(Method)), default="minmax", show_default=True, help="Where to cut outliers."
)
@click.option("--name", help="What to call it in the bundle; default: demo, or the folder's name.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; default: all cores.")
@click.option("--json", "as_json", is_flag=True, help="Print the report as JSON.")
@click.pass_context
def command(ctx: click.Context, /, bundle: Path, data: str, frames: int, name: str | None, **options: Any) -> None:
    """Observe what real frames do inside BUNDLE's vision and temporal graphs, as int8 and fp8 engines need.

    A run that was stopped goes on where it was when it is repeated.
    """
    from storm_edge.calibration.calibrate import calibrate
    from storm_edge.export.calibrated import REPORT
    from storm_edge.runtime.bundle import Bundle

    opened = Bundle.open(bundle)
    clips = _clips(data, options["samples"], frames, opened.config.vision.image_size)
    with progress(ctx, "calibrate") as step:
        folder = calibrate(
            opened,
            clips,
            name or (data if data == "demo" else Path(data).resolve().name),
            samples=options["samples"],
            method=options["method"],
            threads=options["threads"],
            progress=step,
            detail=step.detail,
        )
    report = json.loads((folder / REPORT).read_text(encoding="utf-8"))
    if options["as_json"]:
        click.echo(json.dumps({"calibration": folder.name} | report | {"seconds": step.seconds}))
        return
    worst = min(report["tensors"], key=lambda tensor: report["tensors"][tensor]["int8_snr_db"])
    say(
        ctx,
        f"{folder}: {len(report['tensors'])} tensors in {report['samples']} clips, {report['frames']} different frames;"
        f" hardest in int8: {worst}, whose rounding noise is {report['tensors'][worst]['int8_snr_db']} dB below it.",
    )


def _clips(data: str, samples: int, frames: int, size: int) -> Clips:
    if data == "demo":
        return lambda: islice(_demo_clips(frames, size), samples)
    from storm_edge.calibration.samples import clips_of_folder, find_videos

    find_videos(Path(data))  # refuses a wrong folder before graphs are loaded

    def of_folder() -> Iterable[Frames]:
        return clips_of_folder(Path(data), samples=samples, frames=frames, size=size)

    return of_folder


def _demo_clips(frames: int, size: int) -> Iterator[Frames]:
    """The demo's training clips: those it is tested on stay unseen."""
    from storm_edge.demo.dataset import samples

    for sample in samples(frames=frames, size=size, split="train"):
        yield sample.frames

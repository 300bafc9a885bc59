"""`storm export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from storm_edge.cli.data import data_of
from storm_edge.cli.progress import progress, say

if TYPE_CHECKING:
    pass

CLIPS, FRAMES = 3, 16  # that are recorded


@click.command("export")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Bundle folder to write.")
@click.option(
    "--dtype",
    type=click.Choice(["float32", "float16", "bfloat16"]),
    help="Type in the graphs; default: the checkpoint's.",
)
@click.option("--temporal-pool", type=click.IntRange(1), help="Consecutive frames averaged; default: the checkpoint's.")
@click.option("--spatial-pool", type=click.IntRange(1), help="Side of the averaged block of tokens; 2 means 2 x 2.")
@click.option("--clips", help="`demo`, or a folder of videos or images, to record; default: synthetic frames.")
@click.option("--force", is_flag=True, help="Replace the output folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the bundle and the seconds of every step as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    checkpoint: Path,
    output: Path,
    dtype: str | None,
    temporal_pool: int | None,
    spatial_pool: int | None,
    clips: str | None,
    force: bool,
    as_json: bool,
) -> None:
    """Export CHECKPOINT to a bundle: ONNX graphs, tokenizer, and what PyTorch makes of a few clips.

    Engines are verified on those clips. With int8 and fp8 in mind, give some like those that it will be shown.
    """
    from storm_edge.export.export_bundle import export_bundle

    with progress(ctx, "export") as step:
        notes = export_bundle(
            checkpoint,
            output,
            dtype=dtype,  # type: ignore[arg-type]  # click.Choice has checked it
            temporal_pool=temporal_pool,
            spatial_pool=spatial_pool,
            clips=None if clips is None else data_of(clips).recorded(CLIPS, FRAMES),
            force=force,
            progress=step,
        )
    if as_json:
        click.echo(json.dumps({"bundle": str(output), "notes": notes, "seconds": step.seconds}))
    else:
        for note in notes:
            say(ctx, note)
        say(ctx, f"{output}: a bundle. Next: storm build {output} --target cpu")

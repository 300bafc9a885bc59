"""`storm init`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from storm_edge.cli.progress import progress, say


@click.command("init")
@click.argument("preset")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder to write.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the random weights.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="KEY=VALUE",
    help="Change what config.json says, like temporal.num_layers=1; may be given several times.",
)
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), help="Type of the weights.")
@click.option("--vision-tower", type=click.Path(path_type=Path), help="Import SigLIP from this Hugging Face folder.")
@click.option("--llm", type=click.Path(path_type=Path), help="Import Qwen2 from this Hugging Face folder.")
@click.option("--temporal", type=click.Path(path_type=Path), help="Import Mamba layers from this state dict file.")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="Copy the tokenizer from this folder.")
@click.option("--force", is_flag=True, help="Replace the output folder.")
@click.option("--json", "as_json", is_flag=True, help="Print the checkpoint and the seconds of every step as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    preset: str,
    output: Path,
    seed: int,
    settings: tuple[str, ...],
    dtype: str | None,
    vision_tower: Path | None,
    llm: Path | None,
    temporal: Path | None,
    tokenizer: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Write a checkpoint of PRESET, like storm-mini or storm-7b, with random or imported weights."""
    from storm_edge.runtime.config.presets import preset as find
    from storm_edge.runtime.config.settings import with_settings

    config = with_settings(find(preset), settings)
    from storm_edge.export.checkpoint.importers import Imported, import_language, import_temporal, import_vision
    from storm_edge.export.initialize import initialize
    from storm_edge.runtime.errors import UsageError

    if dtype:
        config = config.model_copy(update={"dtype": dtype})
    vision = language = layers = None
    if vision_tower:
        config, vision = import_vision(vision_tower, config)
    if llm:
        config, language = import_language(llm, config)
        tokenizer = tokenizer or llm
    if with_settings(config, (s for s in settings if not (dtype and s.startswith("dtype=")))) != config:
        raise UsageError("--set contradicts the config.json of an imported part: leave out what that says.")
    if temporal:
        layers = import_temporal(temporal, config)
    with progress(ctx, "init") as step:
        initialize(
            config,
            output,
            seed=seed,
            imported=Imported(vision, layers, language),
            tokenizer=tokenizer,
            force=force,
            progress=step,
        )
    if as_json:
        click.echo(json.dumps({"checkpoint": str(output), "seconds": step.seconds}))
    else:
        say(ctx, f"{output}: a {preset} checkpoint. Next: storm export {output} -o BUNDLE")

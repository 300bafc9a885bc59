"""`storm inspect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from storm_edge.cli.printing import echo

if TYPE_CHECKING:
    from storm_edge.runtime.bundle.manifest import Bundle


@click.command("inspect")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def command(bundle: Path, as_json: bool) -> None:
    """Show what BUNDLE holds: model, graphs with their inputs and outputs, sizes, calibrations, engines.

    Of a checkpoint: its family, configuration, parameters and types of every part, tokenizer, and what is missing.
    """
    from storm_edge.runtime.bundle.manifest import MANIFEST, Bundle

    if (bundle / "config.json").exists() and not (bundle / MANIFEST).exists():
        from storm_edge.export.families.summary import summarize

        facts = summarize(bundle)
    else:
        facts = describe(Bundle.open(bundle))
    if as_json:
        click.echo(json.dumps(facts))
        return
    for key, value in facts.items():
        if isinstance(value, dict):
            echo(f"{key}:")
            for name, item in value.items():
                echo(f"  {name}: {item}")
        elif isinstance(value, list):
            for item in value:
                echo(f"{key}: {item}")
        else:
            echo(f"{key}: {value}")


def describe(bundle: Bundle) -> dict[str, Any]:
    """The facts of a bundle, ready for JSON."""
    from storm_edge.runtime.bundle.contents import unlisted_files
    from storm_edge.runtime.bundle.engine import engine_names, read_engine
    from storm_edge.runtime.bundle.trust import is_ours
    from storm_edge.runtime.proof.figures import describe_reference
    from storm_edge.runtime.runners import RUNNERS

    manifest, config = bundle.manifest, bundle.config
    engines = {}
    for name in engine_names(bundle):
        record = read_engine(bundle, name)
        engines[name] = f"{record.state} {record.created}, " + ("verified" if record.verified else "NOT verified")
        runner = RUNNERS[record.runners["decoder"]] if "decoder" in record.runners else None
        if runner is not None and runner.language:
            gpus = f" on {record.tp} GPUs" if record.tp > 1 else ""
            engines[name] += f", language model by {runner.words}{gpus}"
        engines[name] += "" if is_ours(record) else ", not built by you on this machine"
    return {
        "bundle": str(bundle.root),
        "schema": manifest.schema_version,
        "checkpoint sha256": manifest.checkpoint_sha256,
        "dtype": manifest.dtype,
        "reference": "; ".join(describe_reference(manifest.reference)).removeprefix("reference: "),
        "size": f"{sum(f.size for f in manifest.files.values()) / 2**20:.1f} MiB in {len(manifest.files)} files",
        "visual tokens per pooled frame": config.pooled_tokens_per_frame,
        "visual tokens of 32 frames": config.visual_tokens(32),
        "context": config.llm.max_position_embeddings,
        "graphs": {
            stage: f"opset {graph.opset}; {_values(graph.inputs)} -> {_values(graph.outputs)}"
            for stage, graph in manifest.graphs.items()
        },
        "operators": manifest.operators,
        "versions": manifest.versions,
        "calibrations": _calibrations(bundle) or "none: storm calibrate",
        "engines": engines or "none: storm build",
        "not listed, and never read": ", ".join(unlisted_files(bundle)) or "nothing",
    }


def _calibrations(bundle: Bundle) -> dict[str, str]:
    """What each calibration was made of, and how many layers it quantizes."""
    from storm_edge.runtime.bundle.calibration import SCHEMES, calibration_names, find_calibration

    described = {}
    for name in calibration_names(bundle):
        found = find_calibration(bundle, name)
        layers = [layer for of_stage in found.layers.stages.values() for layer in of_stage.values()]
        norms = sum(len(scales) for stage, scales in found.scales.items() if stage != "decoder")
        of = ", ".join(f"{sum(layer.quantized_in(s) for layer in layers)} in {s}" for s in SCHEMES)
        described[name] = f"{found.method} of {found.samples} clips, of {len(layers)} layers are quantized {of}"
        described[name] += f", {norms} norms smoothed" if norms else ""
        described[name] += ", int4 weights scaled" if found.scales["decoder"] else ""
    return described


def _values(values: list[Any]) -> str:
    shown = [f"{v.name} {v.dtype}[{', '.join(map(str, v.shape))}]" for v in values[:3]]
    return ", ".join(shown) + (f" and {len(values) - 3} more" if len(values) > 3 else "")

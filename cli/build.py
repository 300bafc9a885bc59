"""`storm build`."""

from __future__ import annotations

from pathlib import Path

import click

from storm_edge.cli.progress import progress


@click.command("build")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--target", "target_name", required=True, help="What to build for; `storm doctor` lists the targets.")
@click.option("--precision", help="Precision of the vision tower and temporal encoder; default: the target's.")
@click.option("--llm-precision", help="Precision of the language model; default: the target's.")
@click.option(
    "--allow-mismatch", is_flag=True, help="Publish an engine that fails verification; it is never a default."
)
@click.option("--threads", type=click.IntRange(1), help="CPU threads for the verification; default: all cores.")
@click.pass_context
def command(
    ctx: click.Context,
    bundle: Path,
    target_name: str,
    precision: str | None,
    llm_precision: str | None,
    allow_mismatch: bool,
    threads: int | None,
) -> None:
    """Build an engine from BUNDLE and verify it; a failing engine is not published."""
    from storm_edge.runtime.bundle import Bundle
    from storm_edge.runtime.targets import check_precision, target

    check_precision(target(target_name), precision)
    opened = Bundle.open(bundle)
    from storm_edge.export.build.cpu import build_cpu

    with progress(ctx, "build") as step:
        record = build_cpu(
            opened, precision, llm_precision, allow_mismatch=allow_mismatch, threads=threads, progress=step
        )
    passed = sum(r.passed for r in record.verification)
    click.echo(f"{bundle}/engines/{record.name}: {passed} of {len(record.verification)} checks passed.")
    if not record.verified:
        click.echo(
            "warning: this engine differs from the checkpoint; it is used only when named with --engine.", err=True
        )

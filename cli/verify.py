"""`storm verify`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from storm_edge.cli.progress import progress


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--engine", help="Engine to verify; default: the newest that was verified when it was built.")
@click.option("--threads", type=click.IntRange(1), help="CPU threads; default: all cores.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.pass_context
def command(ctx: click.Context, bundle: Path, engine: str | None, threads: int | None, as_json: bool) -> None:
    """Hash every file of BUNDLE, run an engine on its reference clips and compare every stage with PyTorch's."""
    from storm_edge.runtime.bundle import Bundle
    from storm_edge.runtime.engine import check_engine_hashes, choose_engine
    from storm_edge.runtime.pipeline import MACHINE_TARGETS
    from storm_edge.runtime.verify import require, verify

    opened = Bundle.open(bundle)
    with progress(ctx, "verify") as step:
        opened.check_hashes(step)
        record = choose_engine(opened, engine, MACHINE_TARGETS)
        check_engine_hashes(opened, record)
        results = verify(opened, record, threads=threads, progress=step)
    if as_json:
        rows = [r.model_dump() for r in results]
        click.echo(json.dumps({"engine": record.name, "passed": all(r.passed for r in results), "checks": rows}))
    else:
        click.echo(f"engine {record.name}, {len(opened.manifest.files)} files unchanged")
        click.echo(f"{'clip':<8}{'stage':<15}{'figure':<16}{'measured':>12}{'limit':>12}")
        for r in results:
            mark = "" if r.passed else "  FAILED"
            click.echo(f"{r.clip:<8}{r.stage:<15}{r.metric:<16}{r.value:>12.8g}{r.limit:>12.8g}{mark}")
    require(results, record.name)

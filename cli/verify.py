"""`storm verify`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from storm_edge.cli.options import threads_option
from storm_edge.cli.printing import echo
from storm_edge.cli.progress import listing, progress


@click.command("verify")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--engine", help="Engine to verify; default: the newest that was verified when it was built.")
@click.option("--trust-engines", is_flag=True, help="Also run an engine that was not built by you on this machine.")
@threads_option()
@click.option("--files", is_flag=True, help="Hash the files only; needs neither an engine nor its memory.")
@click.option("--json", "as_json", is_flag=True, help="Print figures and timings as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    bundle: Path,
    engine: str | None,
    trust_engines: bool,
    threads: int | None,
    files: bool,
    as_json: bool,
) -> None:
    """Hash every file of BUNDLE, run an engine on its reference clips and compare every stage with PyTorch's."""
    from storm_edge.runtime.bundle.contents import unlisted_files
    from storm_edge.runtime.bundle.engine import check_engine_hashes
    from storm_edge.runtime.bundle.manifest import Bundle
    from storm_edge.runtime.bundle.trust import choose_engine
    from storm_edge.runtime.machine.memory import peak_device_bytes, peak_memory_bytes
    from storm_edge.runtime.machine.probe import probe
    from storm_edge.runtime.proof.advice import to_find_the_layer
    from storm_edge.runtime.proof.figures import describe_reference
    from storm_edge.runtime.proof.verify import require, verify

    with progress(ctx, "verify") as step:
        step("hash")
        opened = Bundle.open(bundle)
        opened.check_hashes(step.detail)
        unchanged = f"{len(opened.manifest.files)} files unchanged"
        unlisted = unlisted_files(opened)
        if not files:
            record = choose_engine(opened, engine, probe().targets, trust_engines)
            check_engine_hashes(opened, record)
            results = verify(opened, record, threads=threads, progress=step)
    if unlisted and not as_json:
        echo(f"not listed, and never read: {listing(unlisted)}")
    if files:
        if as_json:
            click.echo(json.dumps({"passed": True, "unlisted": unlisted, "seconds": step.seconds}))
        else:
            echo(f"{bundle}: {unchanged}")
        return
    if as_json:
        reference = opened.manifest.reference.model_dump(mode="json")
        rows, passed = [r.model_dump(mode="json") for r in results], all(r.passed for r in results)
        facts = {"engine": record.name, "passed": passed, "reference": reference, "unlisted": unlisted}
        memory = {"peak_memory_bytes": peak_memory_bytes(), "peak_device_bytes": peak_device_bytes()}
        click.echo(json.dumps({**facts, "checks": rows, "seconds": step.seconds, **memory}))
    else:
        echo(f"engine {record.name}, {unchanged}")
        for line in describe_reference(opened.manifest.reference):
            echo(line)
        echo(f"{'clip':<8}{'stage':<15}{'figure':<16}{'measured':>12}{'limit':>12}")
        for r in results:
            mark = "" if r.passed else "  FAILED"
            echo(f"{r.clip:<8}{r.stage:<15}{r.metric:<16}{r.value:>12.8g}{r.limit:>12.8g}{mark}")
        if device := peak_device_bytes():
            echo(f"peak {peak_memory_bytes() / 2**20:.0f} MiB and {device / 2**20:.0f} MiB of the GPU")
        if failed := [r for r in results if not r.passed]:
            echo(f"which layer: {to_find_the_layer(opened, record, failed[0].stage, failed[0].clip)}")
    require(results, opened, record)

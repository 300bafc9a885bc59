"""`storm compare`."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from storm_edge.cli.options import threads_option
from storm_edge.cli.printing import echo
from storm_edge.cli.progress import listing, progress

if TYPE_CHECKING:
    from storm_edge.runtime.bundle.contract import Stage
    from storm_edge.runtime.proof.compare import Comparison, Row

_AROUND = 4  # rows that are printed before the first that differs
_CANONICAL = "onnxruntime"


@click.command("compare")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--engine", required=True, help="Engine to look into; one that is only prepared will do.")
@click.option(
    "--against",
    default=_CANONICAL,
    show_default=True,
    help="Another engine, or onnxruntime: BUNDLE's own graphs on the CPU.",
)
@click.option("--stage", type=click.Choice(["vision", "temporal", "decoder"]), default="temporal", show_default=True)
@click.option(
    "--mark",
    type=click.Choice(["layers", "all"]),
    default="layers",
    show_default=True,
    help="What to compare: the outputs of layers, or of every node.",
)
@click.option("--clip", help="Reference clip, clip1 for instance; default: the first.")
@click.option("--trust-engines", is_flag=True, help="Also run engines that were not built by you on this machine.")
@threads_option()
@click.option("--json", "as_json", is_flag=True, help="Print every row as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    bundle: Path,
    engine: str,
    against: str,
    stage: Stage,
    mark: str,
    clip: str | None,
    trust_engines: bool,
    threads: int | None,
    as_json: bool,
) -> None:
    """Find the first layer at which an engine of BUNDLE differs from another, or from BUNDLE's own graphs."""
    from storm_edge.runtime.bundle.engine import check_engine_once
    from storm_edge.runtime.bundle.manifest import Bundle
    from storm_edge.runtime.bundle.trust import choose_engine
    from storm_edge.runtime.errors import ParityError, UsageError
    from storm_edge.runtime.proof.compare import compare
    from storm_edge.runtime.proof.verify import label_of

    with progress(ctx, "compare") as step:
        step("hash")
        opened = Bundle.open(bundle)
        opened.check_once(step.detail)
        clips = {label_of(name): name for name in opened.manifest.clips}
        label = clip or next(iter(clips))
        if label not in clips:
            raise UsageError(f"{bundle} has no reference clip {label!r}: choose one of {', '.join(clips)}.")
        names = [engine] if against == _CANONICAL else [engine, against]
        records = [choose_engine(opened, name, (), trust_engines) for name in names]
        for record in records:
            check_engine_once(opened, record, step.detail)
        other = records[1] if len(records) > 1 else None
        beside = other.name if other else "the bundle's own graph"
        step("run")
        found = compare(
            opened, records[0], other, stage, clips[label], every=mark == "all", threads=threads, progress=step.detail
        )
    if as_json:
        sides = {"engine": engine, "against": against, "stage": stage, "clip": label}
        first = _as_json(found.first) if found.first is not None else None
        rows = [_as_json(row) for row in found.rows]
        figures = {"first": first, "rows": rows, "left_out": found.left_out, "seconds": step.seconds}
        click.echo(json.dumps(sides | figures))
    else:
        _show(found, f"{stage} of {engine} beside {beside}, {label}")
    if found.first is not None:
        t, d = found.first.tensor, found.first.figures
        finer = "look at its weights and at what made them" if mark == "all" else "--mark all looks between the layers"
        raise ParityError(
            f"{stage} of {engine} differs from {beside} on {label} first at node {t.node} ({t.op}), tensor {t.name}:"
            f" cosine {d.cosine:.6g}, max error {d.error:.3g}; {finer}."
        )


def _as_json(row: Row) -> dict[str, object]:
    t = row.tensor
    figures = {key: value if value == value else "nan" for key, value in row.figures.model_dump().items()}
    return {"node": t.node, "op": t.op, "tensor": t.name, **figures, "passed": row.passed}


def _show(found: Comparison, what: str) -> None:
    """The last rows that agree and the first that does not, and what was left out and why."""
    echo(f"{what}: {len(found.rows)} tensors")
    by_reason: dict[str, list[str]] = defaultdict(list)
    for name, reason in found.left_out.items():
        by_reason[reason].append(name)
    for reason, names in by_reason.items():
        echo(f"not compared, {reason}: {listing(names)}")
    end = next((i + 1 for i, row in enumerate(found.rows) if not row.passed), len(found.rows))
    echo(f"{'op':<26}{'cosine':>12}{'norm ratio - 1':>16}{'max error':>12}  tensor")
    for row in found.rows[max(0, end - _AROUND) : end]:
        d = row.figures
        mark = "" if row.passed else "  DIFFERS"
        echo(f"{row.tensor.op:<26}{d.cosine:>12.8g}{d.norm_ratio:>16.3g}{d.error:>12.3g}  {row.tensor.name}{mark}")
    if found.first is None:
        echo("no layer differs by more than verify allows its precision")

"""`storm eval`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from storm_edge.cli.data import data_of
from storm_edge.cli.options import COUNT, threads_option, video_options
from storm_edge.cli.printing import echo
from storm_edge.cli.progress import progress

if TYPE_CHECKING:
    from storm_edge.runtime.proof.evaluate import Result, Score


@click.command("eval")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--data", required=True, help="`demo`, or a folder with videos and their questions as JSON Lines.")
@click.option("--engine", help="Engine to evaluate; default: the newest verified one for this machine.")
@click.option("--trust-engines", is_flag=True, help="Also run an engine that was not built by you on this machine.")
@click.option("--no-check", is_flag=True, help="Do not hash files that were not read on this machine before.")
@click.option("-n", "number", type=COUNT, help="Questions to ask; default: all of a folder, 200 of demo.")
@click.option("--frames", type=COUNT, help="Frames to look at; default: 32, of demo its clips' 16.")
@click.option("--sample", type=COUNT, help="Keep every N-th pooled frame.")
@video_options
@threads_option()
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Write every result here, and go on from it.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    bundle: Path,
    data: str,
    engine: str | None,
    trust_engines: bool,
    no_check: bool,
    number: int | None,
    frames: int | None,
    sample: int | None,
    snap: float | None,
    skip_still: int,
    threads: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Measure how often an engine of BUNDLE answers right, per type of question, with 95% intervals."""
    from storm_edge.runtime.answer.pipeline import load
    from storm_edge.runtime.proof.divergence import logit_divergence
    from storm_edge.runtime.proof.evaluate import evaluate, scores
    from storm_edge.runtime.proof.result_log import ResultLog

    source = data_of(data)
    with progress(ctx, "eval") as step:
        step("load")
        pipeline = load(
            bundle, engine, threads=threads, check=not no_check, trust_engines=trust_engines, progress=step.detail
        )
        items, frames, number = source.items(frames, number, pipeline.bundle.config.vision.image_size)
        about: dict[str, object] = {"bundle": pipeline.bundle.sha256, "engine": pipeline.engine.name, "data": data}
        how = {"frames": frames, "sample": sample, "snap": snap, "skip_still": skip_still}
        about |= how
        log = None if output is None else ResultLog(output, about)
        done: list[bool] = []

        def tell(result: Result) -> None:
            done.append(result.right)
            step(f"{len(done)}{f' of {number}' if number else ''} questions, {sum(done) / len(done):.1%} right")

        results = evaluate(pipeline, items, log=log, progress=tell, **how)
        step("logits")
        divergence = logit_divergence(pipeline.bundle, pipeline.stages)
    overall, kinds = scores(results)
    if as_json:
        report: dict[str, object] = {"engine": pipeline.engine.name, "data": data, **how}
        report |= {"questions": len(results), "accuracy": None if math.isnan(overall.accuracy) else overall.accuracy}
        report |= {"interval": [overall.low, overall.high], "types": {k: asdict(s) for k, s in kinds.items()}}
        click.echo(json.dumps(report | {"logit_divergence": asdict(divergence)}))
        return
    echo(f"engine {pipeline.engine.name}, {len(results)} questions of {data}")
    echo(f"{'type':<24}{'right':>12}{'accuracy':>11}{'95% interval':>18}")
    for kind, score in kinds.items():
        echo(_row(kind, score))
    echo(_row("all", overall))
    echo(
        f"logits against PyTorch over {divergence.tokens} reference tokens: mean KL {divergence.kl:.2e},"
        f" {divergence.agreeing:.1%} choose the same token"
    )


def _row(kind: str, score: Score) -> str:
    interval = f"{score.low:.1%} - {score.high:.1%}"
    return f"{kind:<24}{f'{score.right} / {score.asked}':>12}{score.accuracy:>10.1%}{interval:>19}"

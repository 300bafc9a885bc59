"""What would make a plan fit: precision, sampling, pooling, frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import combinations

from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.machine.hardware import Device
from storm_edge.runtime.machine.targets import Target
from storm_edge.runtime.plan.planning import Plan, PlanOptions, make_plan, most_frames
from storm_edge.runtime.plan.work import WEIGHT_BYTES

_TRAINED = "needs a checkpoint trained with it"


@dataclass(frozen=True)
class Advice:
    """Words for the command line, and the plan they lead to."""

    words: str
    plan: Plan


@dataclass(frozen=True)
class _Change:
    field: str
    value: str | int
    words: str


def advise(config: StormConfig, where: Target, device: Device | None, options: PlanOptions) -> list[Advice]:
    """The fewest changes that fit, the mildest first; empty where the plan fits, or where nothing helps.

    Fewer frames come last: alone, or with the fewest changes where these do not suffice for all frames.
    """

    def plan_with(chosen: tuple[_Change, ...]) -> Advice:
        return Advice(", ".join(c.words for c in chosen), make_plan(config, where, device, _applied(options, chosen)))

    if make_plan(config, where, device, options).fits:
        return []
    sets = list(_sets(list(_changes(config, where, options))))
    fitting = [(len(chosen), made) for chosen in sets if (made := plan_with(chosen)).plan.fits]
    found = [made for number, made in fitting if number == min(n for n, _ in fitting)]
    shorter = [(chosen, _most(config, where, device, options, chosen)) for chosen in ([()] if found else [(), *sets])]
    possible = [(chosen, frames) for chosen, frames in shorter if frames]
    if possible:
        fewest = min(len(chosen) for chosen, _ in possible)
        best = [max((p for p in possible if len(p[0]) == fewest), key=lambda p: p[1])]
        most = max(possible, key=lambda p: p[1])  # the first of equals, which has the fewest changes
        if most[1] >= 1.5 * best[0][1]:
            best.append(most)
        found += [plan_with((*chosen, _Change("frames", n, f"--frames {n}"))) for chosen, n in best]
    return found


def _sets(changes: list[_Change]) -> Iterator[tuple[_Change, ...]]:
    """Every choice of at most one change a field, fewest changes first."""
    for number in range(1, len({c.field for c in changes}) + 1):
        for chosen in combinations(changes, number):
            if len({c.field for c in chosen}) == number:
                yield chosen


def _most(
    config: StormConfig, where: Target, device: Device | None, options: PlanOptions, chosen: tuple[_Change, ...]
) -> int:
    return most_frames(config, where, device, _applied(options, chosen))


def _changes(config: StormConfig, where: Target, options: PlanOptions) -> Iterator[_Change]:
    """Single changes, mildest first; of one field the strongest last."""
    chosen = where.chosen_status(options.llm) if options.llm else None
    for field, flag, choices, built in (
        ("llm_precision", "--llm-precision", tuple(chosen or where.llm_precisions), chosen or where.llm_status),
        ("precision", "--precision", where.precisions, where.status),
    ):
        now = WEIGHT_BYTES[getattr(options, field)]
        smaller = [p for p in choices if WEIGHT_BYTES[p] < now]
        for precision in sorted(smaller, key=lambda p: -WEIGHT_BYTES[p]):
            later = "" if precision in built else " (which this version does not build yet)"
            yield _Change(field, precision, f"{flag} {precision}{later}")
    sample = options.sample or config.reduction.sample
    for stride in (2, 4):
        if stride > sample:
            yield _Change("sample", stride, f"--sample {stride}")
    pool = options.temporal_pool or config.reduction.temporal_pool
    if pool < 4:  # the paper's
        yield _Change("temporal_pool", 4, f"--temporal-pool 4 ({_TRAINED})")
    side = options.spatial_pool or config.reduction.spatial_pool
    if side < 2 and config.token_grid % 2 == 0:
        yield _Change("spatial_pool", 2, f"--spatial-pool 2 ({_TRAINED})")


def _applied(options: PlanOptions, changes: tuple[_Change, ...]) -> PlanOptions:
    return replace(options, **{c.field: c.value for c in changes})  # type: ignore[arg-type]

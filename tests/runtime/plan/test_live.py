from __future__ import annotations

from dataclasses import replace

import pytest

from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.plan.live import ANSWER, LivePlan, live_plan
from storm_edge.runtime.plan.planning import PlanOptions, device_of, make_plan

SEVEN, ORIN = preset("storm-7b"), target("orin")
HALF = PlanOptions(32, "fp16", "bf16")


def planned(every: float = 5, options: PlanOptions = HALF) -> LivePlan:
    live = live_plan(SEVEN, make_plan(SEVEN, ORIN, device_of(ORIN, 64), options), every)
    assert live is not None
    return live


def test_it_is_made_of_the_times_of_the_stages() -> None:
    plan = make_plan(SEVEN, ORIN, device_of(ORIN, 64), HALF)
    vision, temporal, prefill, decode = (plan.stages[s].expected or 0 for s in plan.stages)
    live = planned()
    # One frame by itself reads all weights for itself, so it takes no less than its share of a batch.
    assert vision / 32 <= live.look < 1.5 * vision / 32
    assert live.first_token == live.look + temporal + prefill
    assert live.answer == live.first_token + (ANSWER - 1) * decode
    assert live.fps_unasked == 1 / live.look
    assert live.fps == pytest.approx((1 - (live.answer - live.look) / 5) / live.look)


def test_who_asks_more_often_leaves_less_time_for_frames() -> None:
    rates = [planned(every).fps for every in (60, 10, 5, planned().answer)]
    assert rates == sorted(rates, reverse=True)
    assert rates[0] > 0.9 * planned().fps_unasked
    assert planned(0.5).fps == 0


def test_a_longer_window_costs_latency_and_no_look() -> None:
    longer = planned(options=replace(HALF, frames=64))
    assert longer.look == planned().look
    assert longer.first_token > 1.5 * planned().first_token


def test_without_published_rates_there_are_no_times() -> None:
    cpu = target("cpu")
    plan = make_plan(SEVEN, cpu, device_of(cpu, 16), PlanOptions(32, "fp32", "fp32"))
    assert live_plan(SEVEN, plan, 5) is None


@pytest.mark.parametrize("every", [0.0, -1.0, float("nan")])
def test_a_time_that_is_none_is_refused(every: float) -> None:
    with pytest.raises(UsageError, match="give a time above 0"):
        planned(every)

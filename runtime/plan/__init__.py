"""What a model needs on a device, and what to expect, before anything is built."""

from storm_edge.runtime.plan.advice import Advice, advise
from storm_edge.runtime.plan.live import LivePlan, live_plan
from storm_edge.runtime.plan.planning import Plan, PlanOptions, StagePlan, default_options, device_of, make_plan

__all__ = [
    "Advice",
    "LivePlan",
    "Plan",
    "PlanOptions",
    "StagePlan",
    "advise",
    "default_options",
    "device_of",
    "live_plan",
    "make_plan",
]

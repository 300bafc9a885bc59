"""What a device can do about a live video, from the times of a plan's stages: see `runtime/answer/watch.py`."""

from __future__ import annotations

from dataclasses import dataclass

from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.plan.planning import Plan, reduced
from storm_edge.runtime.plan.times import efficiencies, floor_seconds
from storm_edge.runtime.plan.work import vision_work

ANSWER = 16  # tokens of an answer


@dataclass(frozen=True)
class LivePlan:
    """Expected times in seconds, of a window of `frames` that is asked about again every `every`.

    `look` is vision of one frame by itself; `first_token` from a question to its first word, at worst behind one look;
    `answer` to its last. The stages take turns on the device, so an answer leaves vision the rest of the time:
    `fps` frames a second, 0 where there is no rest, and `fps_unasked` while nobody asks. `oldest` is how long ago the
    newest frame of an answer came at its first word, where frames come as fast as they are looked at.
    """

    frames: int
    every: float
    look: float
    first_token: float
    answer: float
    fps: float
    fps_unasked: float
    oldest: float


def live_plan(config: StormConfig, plan: Plan, every: float) -> LivePlan | None:
    """None where no rate of the device is published; raises UsageError for a time that is none."""
    if not every > 0:
        raise UsageError(f"every {every} s: give a time above 0.")
    temporal, prefill, decode = (plan.stages[stage].expected for stage in ("temporal", "prefill", "decode"))
    if plan.device is None or temporal is None or prefill is None or decode is None:
        return None
    options = plan.options
    floor = floor_seconds(vision_work(reduced(config, options), 1, options.precision, 1), plan.device)
    if floor is None:
        return None
    look = floor / efficiencies()["vision"]
    first_token = look + temporal + prefill
    answer = first_token + (ANSWER - 1) * decode
    rest = max(0.0, 1 - (answer - look) / max(every, answer - look))
    return LivePlan(options.frames, every, look, first_token, answer, rest / look, 1 / look, first_token + look)

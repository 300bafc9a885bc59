"""What was measured, beside the work that the configuration asks for and the machine's limits: docs/bench.md."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from storm_edge.runtime.bench.limits import Limits
from storm_edge.runtime.bench.measuring import STAGES, Run, Runs
from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.config.sizes import CHUNK, vision_batch
from storm_edge.runtime.machine.hardware import Device
from storm_edge.runtime.plan.times import floor_seconds
from storm_edge.runtime.plan.work import Work, decode_work, prefill_work, temporal_work, vision_work
from storm_edge.runtime.runners import RUNNERS

SCHEMA = 1  # of the JSON


def clip_report(config: StormConfig, engine: EngineRecord, limits: Limits, frames: int, runs: Runs) -> dict[str, Any]:
    """Everything about an engine's runs on clips of one length, ready for JSON."""
    first = runs.runs[0]
    found = peer_report(runs) | {
        "frames": frames,
        "tokens": frames * config.tokens_per_frame,
        "visual_tokens": first.visual_tokens,
        "prompt_tokens": first.prompt_tokens,
        "answer_tokens": len(first.tokens) + 1,
        "peak_device_bytes": max(run.peak_device_bytes for run in runs.runs),
    }
    for name, stage in _stages(config, engine, frames, first).items():
        if name in found:
            found[name] |= stage.beside(limits, found[name]["seconds"]["median"])
    return found | ({} if runs.joules is None else {"joules": runs.joules})


def peer_report(runs: Runs) -> dict[str, Any]:
    """Seconds and memory of whoever answered; with them alone that of one that runs beside an engine."""
    found: dict[str, Any] = {name: {"seconds": spread([run.seconds[name] for run in runs.runs])} for name in STAGES}
    if each := [seconds for run in runs.runs for seconds in run.tokens]:
        found["decode"] = {"seconds": spread(each)}
    found["first_token_seconds"] = spread([run.first_token for run in runs.runs])
    found["second_question_seconds"] = spread([run.again for run in runs.runs])
    found["total_seconds"] = spread([run.total for run in runs.runs])
    found["warm_up_seconds"] = runs.warm_up
    return found | {"peak_memory_bytes": max(run.peak_memory_bytes for run in runs.runs)}


def spread(values: Sequence[float]) -> dict[str, float]:
    """The median with the least and the most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


@dataclass(frozen=True)
class StageWork:
    """What a stage has to do; of decode, for one token."""

    work: list[Work]
    exponentials: float

    def beside(self, limits: Limits, seconds: float) -> dict[str, float | None]:
        """What was reached in `seconds`, and how long the machine's limits take for it at the least."""
        rates = {precision: rate / 1e12 for precision, rate in limits.flops_per_second.items()}
        floor = floor_seconds(self.work, Device("this machine", 0, limits.bytes_per_second / 1e9, rates))
        limit = None if floor is None else floor + self.exponentials / limits.exponentials_per_second
        flops, moved = sum(part.flops for part in self.work), sum(part.bytes for part in self.work)
        return {
            "flops": flops,
            "bytes": moved,
            "exponentials": self.exponentials,
            "flops_per_second": flops / seconds,
            "bytes_per_second": moved / seconds,
            "limit_seconds": limit,
            "share_of_limit": None if limit is None else limit / seconds,
        }


def _stages(config: StormConfig, engine: EngineRecord, frames: int, run: Run) -> dict[str, StageWork]:
    """The work of every stage but decoding the video, and the exponentials of its softmax or scan."""
    p, q, v, t, m = engine.precision, engine.llm_precision, config.vision, config.temporal, config.llm
    k = config.reduction.temporal_pool
    scanned = -(-frames // k) * k * config.tokens_per_frame  # the last frame is repeated to fill up a group
    directions = t.num_layers * (2 if t.bidirectional else 1)
    prompt, heads = run.prompt_tokens, m.num_hidden_layers * m.num_attention_heads
    middle = prompt + len(run.tokens) // 2
    batch = vision_batch(config, RUNNERS[engine.runners["vision"]].device)
    return {
        "vision": StageWork(
            vision_work(config, frames, p, batch), frames * v.layers_run * v.num_attention_heads * float(v.grid**4)
        ),
        "temporal": StageWork(
            temporal_work(config, scanned // config.tokens_per_frame, p),
            float(scanned) * config.d_inner * t.d_state * directions,
        ),
        "prefill": StageWork(prefill_work(config, prompt, q, CHUNK), heads * prompt**2 / 2),
        "decode": StageWork(decode_work(config, middle, q), float(heads * middle)),
    }

"""Floors and expected times.

Floor: every operation takes the longer of its arithmetic at the published dense rate and its traffic at the published
bandwidth. Expected: floor over an efficiency per stage. Vision, temporal and prefill are fitted on ONE row of the
paper's latency table (128 frames, 25% of the tokens, one A100 80GB; arXiv 2503.04130), decode on NVILA-Video-8B in 16
bits on an AGX Orin 64GB; the other rows test them. That other devices and precisions reach the same share of their
peaks is an assumption, and so are the paper's unstated choices (two temporal layers, 16 states).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.config.sizes import TENSORRT_LARGEST_CHUNK, VISION_BATCH
from storm_edge.runtime.machine.hardware import DEVICES, Device
from storm_edge.runtime.plan.work import Work, decode_work, prefill_work, temporal_work, vision_work

_16_BIT = "bf16"
MODEL = "storm-7b"


@dataclass(frozen=True)
class PaperRow:
    """Milliseconds on one A100 80GB. `reduction`: how many times fewer tokens the language model sees."""

    frames: int
    reduction: int
    llm: float
    vision: float
    temporal: float

    @property
    def tokens(self) -> int:
        """Visual tokens in the prompt."""
        return self.frames * preset(MODEL).tokens_per_frame // self.reduction


FITTED = PaperRow(128, 4, 622, 1010, 163)
PAPER_ROWS = (
    PaperRow(32, 1, 623, 269, 41),
    PaperRow(128, 1, 3090, 1020, 163),
    FITTED,
    PaperRow(128, 8, 323, 1020, 163),
    PaperRow(256, 1, 7960, 2030, 348),
    PaperRow(256, 4, 1310, 2020, 349),
    PaperRow(256, 8, 623, 2030, 349),
    PaperRow(512, 8, 1310, 4070, 815),
)
# NVILA-Video-8B (the same language model) on AGX Orin 64GB: tokens a second by weights; its context is not published.
NVILA_DECODE = {"fp16": 10.9, "int4": 32.3}
NVILA_CONTEXT = 4096


def floor_seconds(work: list[Work], device: Device) -> float | None:
    """The least time for this work; None where the device's rate for one of its precisions is not published."""
    if any(w.flops and w.precision not in device.rates for w in work):
        return None
    return sum(max(w.flops / (device.rates[w.precision] * 1e12) if w.flops else 0, _moved(w, device)) for w in work)


def _moved(work: Work, device: Device) -> float:
    return work.bytes / (device.bandwidth * 1e9)


def paper_floor(row: PaperRow) -> dict[str, float]:
    """Seconds by stage at the least, for a row of the paper's table."""
    config, device = preset(MODEL), DEVICES["a100"][-1]
    floors = {
        "vision": floor_seconds(vision_work(config, row.frames, _16_BIT, VISION_BATCH), device),
        "temporal": floor_seconds(temporal_work(config, row.frames, _16_BIT), device),
        "prefill": floor_seconds(prefill_work(config, row.tokens, _16_BIT, TENSORRT_LARGEST_CHUNK), device),
    }
    return {stage: seconds for stage, seconds in floors.items() if seconds is not None}


def nvila_floor(precision: str) -> float:
    """Seconds a token at the least, for NVILA's decode on AGX Orin."""
    floor = floor_seconds(decode_work(preset(MODEL), NVILA_CONTEXT, precision), DEVICES["orin"][-1])
    assert floor is not None
    return floor


@cache
def efficiencies() -> dict[str, float]:
    """Share of the floor's speed that each stage reaches."""
    floors = paper_floor(FITTED)
    measured = {"vision": FITTED.vision, "temporal": FITTED.temporal, "prefill": FITTED.llm}
    fitted = {stage: floors[stage] * 1e3 / measured[stage] for stage in measured}
    return fitted | {"decode": nvila_floor("fp16") * NVILA_DECODE["fp16"]}

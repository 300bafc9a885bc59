"""Sizes that the runtime, the profiles and the plan agree on."""

from __future__ import annotations

from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.config.sizes import HOST_PATCHES, VISION_BATCH, vision_batch


def test_large_frames_go_through_a_processor_one_by_one_and_small_ones_in_batches() -> None:
    large, small = preset("storm-7b"), preset("storm-mini")
    assert large.vision.grid**2 >= HOST_PATCHES
    assert vision_batch(large, "cpu") == 1
    assert vision_batch(small, "cpu") == VISION_BATCH
    assert vision_batch(large, "cuda") == VISION_BATCH

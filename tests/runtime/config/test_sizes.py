"""Sizes that the runtime, the profiles and the plan agree on."""

from __future__ import annotations

from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.config.sizes import HOST_PATCHES, VISION_BATCH, chunk_frames, vision_batch, whole_frames


def test_large_frames_go_through_a_processor_one_by_one_and_small_ones_in_batches() -> None:
    large, small = preset("storm-7b"), preset("storm-mini")
    assert large.vision.grid**2 >= HOST_PATCHES
    assert vision_batch(large, "cpu") == 1
    assert vision_batch(small, "cpu") == VISION_BATCH
    assert vision_batch(large, "cuda") == VISION_BATCH


def test_a_chunk_is_1024_tokens_of_storm_7b_and_more_of_narrower_models() -> None:
    large, small = preset("storm-7b"), preset("storm-mini")
    assert chunk_frames(large) * large.tokens_per_frame == 1024
    assert chunk_frames(small) * small.tokens_per_frame > 10 * 1024
    assert chunk_frames(small) < whole_frames(small)

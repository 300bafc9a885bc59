from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from storm_edge.runtime.answer.encoding import EncodedFrames, encode_frames
from storm_edge.runtime.answer.source import OpenedSource
from storm_edge.runtime.answer.stages import Encoders
from storm_edge.runtime.answer.still import StillFrames
from storm_edge.runtime.answer.temporal import TemporalEncoder
from storm_edge.runtime.errors import VideoError
from storm_edge.runtime.sessions.device import HOST, Device
from storm_edge.runtime.video import FrameBatch
from storm_edge.runtime.video.reading import without_repeats


@dataclass
class Vision:
    """A session whose tokens are the levels of its frames."""

    device: Device = HOST
    batch: int = 4
    given: list[list[int]] = field(default_factory=list)

    def run(self, **inputs: Any) -> dict[str, Any]:
        frames = inputs["frames"]
        self.given.append(frames[:, 0, 0, 0].tolist())
        return {"tokens": frames[:, :1, 0, :1].astype(np.float32)}


def batches(levels: list[int], size: int = 4) -> Iterator[FrameBatch]:
    frames = np.array(levels, np.uint8)[:, None, None, None].repeat(3, 3)
    for at in range(0, len(levels), size):
        yield FrameBatch(frames[at : at + size], np.arange(at, min(at + size, len(levels)), dtype=float))


def encoded(
    vision: Vision, source: Iterator[FrameBatch], tolerance: int = 0, beside: bool = True, **how: Any
) -> EncodedFrames:
    how = {"frames": None, "check": lambda count: None} | how
    encoders = Encoders(vision, TemporalEncoder(Vision()), 4)
    return encode_frames(encoders, OpenedSource(source, StillFrames(tolerance), beside), **how)


def levels_of(found: EncodedFrames) -> list[float]:
    return np.concatenate([HOST.host(block) for block in found.tokens.blocks()])[: found.tokens.count, 0, 0].tolist()


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("frames", [None, 12])
def test_still_frames_take_the_tokens_of_the_one_before(beside: bool, frames: int | None) -> None:
    levels, vision = [1, 1, 2, 3, 3, 3, 3, 3, 3, 4, 4, 1], Vision()
    found = encoded(vision, batches(levels), beside=beside, frames=frames)
    assert levels_of(found) == levels
    assert vision.given == [[1, 2, 3], [4, 1]]
    assert found.reused == 7
    np.testing.assert_array_equal(found.timestamps, np.arange(12))


def test_within_a_tolerance_what_was_encoded_stands_for_the_rest() -> None:
    found = encoded(Vision(), batches([10, 11, 12, 13, 14]), tolerance=2)
    assert levels_of(found) == [10, 10, 10, 13, 13]


def test_the_number_of_frames_is_checked_before_a_batch_is_encoded_and_no_thread_is_left() -> None:
    vision, seen = Vision(), []

    def check(count: int) -> None:
        seen.append(count)
        if count > 8:
            raise ValueError("too many")

    with pytest.raises(ValueError, match="too many"):
        encoded(vision, batches(list(range(100))), check=check)
    assert seen == [4, 8, 12]
    assert len(vision.given) == 2
    assert not [thread for thread in threading.enumerate() if thread.name == "storm-decode"]


def test_no_frames_are_an_error() -> None:
    with pytest.raises(VideoError, match="no frames"):
        encoded(Vision(), iter(()))


def test_frames_shown_again_are_left_out_where_that_is_asked() -> None:
    black = np.zeros((3, 1, 1, 3), np.uint8)
    shown = [FrameBatch(black, np.array(times)) for times in ([0, 0, 1], [1, 1, 1], [2, 2, 3])]
    assert [b.timestamps.tolist() for b in without_repeats(iter(shown))] == [[0, 1], [2, 3]]

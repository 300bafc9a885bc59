from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from storm_edge.runtime.answer.still import StillFrames
from storm_edge.runtime.errors import UsageError


def flat(*levels: int) -> Any:
    return np.array(levels, np.uint8)[:, None, None, None].repeat(4, 1).repeat(4, 2).repeat(3, 3)


def test_equal_frames_are_still_also_across_batches() -> None:
    still = StillFrames()
    assert still.moving(flat(5, 5, 6)).tolist() == [True, False, True]
    assert still.moving(flat(6, 6)).tolist() == [False, False]
    assert still.moving(flat(5)).tolist() == [True]  # not the last one, but one before it
    assert still.count == 3


def test_one_level_in_one_channel_of_one_pixel_is_no_longer_equal() -> None:
    frames = flat(100, 100)
    frames[1, 3, 2, 1] += 1
    assert StillFrames().moving(frames).tolist() == [True, True]
    assert StillFrames(1).moving(frames).tolist() == [True, False]


def test_a_tolerance_counts_from_the_last_frame_that_was_encoded() -> None:
    assert StillFrames(2).moving(flat(10, 12, 13, 15, 9)).tolist() == [True, False, True, False, True]
    assert StillFrames(255).moving(flat(0, 255, 1)).tolist() == [True, False, False]


@pytest.mark.parametrize("tolerance", [-1, 256, 1.5, "1", True, None])
def test_a_tolerance_that_is_no_level_is_refused(tolerance: Any) -> None:
    with pytest.raises(UsageError, match="0 to 255"):
        StillFrames(tolerance)

from __future__ import annotations

import numpy as np
import pytest
from av import VideoFrame

from storm_edge.runtime.video.live import pictures
from storm_edge.runtime.video.live.pictures import PictureMaker


@pytest.mark.parametrize("shape", [(1080, 1920), (1921, 1081), (300, 4000)])
def test_a_picture_keeps_its_aspect_within_the_bound(shape: tuple[int, int]) -> None:
    made = PictureMaker(10_000)(np.zeros((*shape, 3), np.uint8))
    height, width = made.shape[:2]
    assert height * width <= 10_000
    assert height % 2 == width % 2 == 0
    assert width / height == pytest.approx(shape[1] / shape[0], rel=0.1)


def test_a_small_frame_stays_as_it_is() -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    np.testing.assert_array_equal(PictureMaker(10_000)(frame), frame)


def test_a_frame_of_one_pixel_is_a_picture_that_can_be_encoded() -> None:
    assert PictureMaker(100)(np.full((1, 1, 3), 7, np.uint8)).shape == (2, 2, 3)


@pytest.mark.parametrize("shape", [(2, 60_000), (60_000, 2)])
def test_a_line_is_no_more_than_the_bound(shape: tuple[int, int]) -> None:
    assert PictureMaker(1000)(np.zeros((*shape, 3), np.uint8)).size <= 3000


def test_a_camera_that_lies_is_set_upright(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "display_matrix", lambda frame: (0, 1, -1, 0))
    frame = VideoFrame.from_ndarray(np.zeros((64, 96, 3), np.uint8), format="rgb24")
    assert PictureMaker(10_000)(frame).shape == (96, 64, 3)

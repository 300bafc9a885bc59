"""Frames of any shape become the model's square."""

import numpy as np
import pytest

from storm_edge.runtime.errors import VideoError
from storm_edge.runtime.video import read_frames


@pytest.mark.parametrize(("height", "width"), [(1, 8000), (8000, 1), (2, 30_000), (30_000, 2), (3, 6000), (1, 1)])
@pytest.mark.parametrize("size", [16, 64, 384])
def test_one_very_long_side_makes_no_difference(tmp_path, media, height, width, size):
    flat = np.full((1, height, width, 3), (200, 60, 90), np.uint8)
    image = media.write(tmp_path / "a.png", flat, "png", pixels="rgb24", container="image2pipe")
    for source in (image, flat):
        frames, _ = media.read(source, size=size)
        assert frames.shape == (1, size, size, 3)
        assert np.abs(frames.astype(int) - (200, 60, 90)).max() <= 1


def test_what_cannot_be_scaled_is_one_line():
    with pytest.raises(VideoError, match=r"of 2000000 x 1 pixels .* cannot be scaled to 8 x 8") as caught:
        list(read_frames(np.zeros((1, 1, 2_000_000, 3), np.uint8), size=8))
    assert "\n" not in str(caught.value)

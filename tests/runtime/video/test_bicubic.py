"""The matrices against swscale itself: within 1 of 255, also where colours overshoot and at the edges."""

import numpy as np
import pytest

from storm_edge.runtime.video.bicubic import MOST, colours, weights
from storm_edge.runtime.video.resizing import Resizer

SHAPES = [(48, 64, 32), (100, 100, 384), (9, 99, 64), (360, 640, 224), (3, 3, 64), (1, 7, 16), (8, 999, 32)]


def scaled(frame, size):
    to_yuv, offset, to_rgb, back = colours()
    planes = (frame.astype(np.float32) @ to_yuv + offset).transpose(2, 0, 1)
    rows = np.minimum(planes @ weights(frame.shape[1], size).T, MOST)
    rgb = (weights(frame.shape[0], size) @ rows).transpose(1, 2, 0) @ to_rgb + back
    return rgb.round().clip(0, 255)


@pytest.mark.parametrize(("height", "width", "size"), SHAPES)
@pytest.mark.parametrize("kind", ["black and white dots", "noise", "blocks", "gradient"])
def test_it_is_swscale_within_one_level(height, width, size, kind):
    rng = np.random.default_rng(0)
    frame = {
        "black and white dots": rng.integers(0, 2, (height, width, 3)) * 255,
        "noise": rng.integers(0, 256, (height, width, 3)),
        "blocks": rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3)).repeat(8, 0).repeat(8, 1)[:height, :width],
        "gradient": np.linspace(0, 255, height * width * 3).reshape(height, width, 3),
    }[kind].astype(np.uint8)
    assert np.abs(Resizer(size)(frame) - scaled(frame, size)).max() <= 1


@pytest.mark.parametrize(("source", "size"), [(1, 1), (1, 64), (64, 1), (1920, 448), (4320, 8), (2, 3)])
def test_every_pixel_is_a_weighted_mean(source, size):
    matrix = weights(source, size)
    assert matrix.shape == (size, source)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)

"""Frames in memory go the same way as those of a file."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def lossless(tmp_path_factory, media):
    """The pattern, and a file that holds exactly it."""
    pixels = media.pattern(45)
    path = media.write(
        tmp_path_factory.mktemp("lossless") / "a.mp4", pixels, "libx264rgb", pixels="rgb24", options={"qp": "0"}
    )
    return path, pixels, np.arange(45) / 30


@pytest.mark.parametrize("arguments", [{}, {"frames": 7}, {"frames": 64}, {"fps": 4}, {"fps": 45}])
@pytest.mark.parametrize("size", [24, 64, 80])
def test_a_lossless_file_its_frames_and_their_pairs_give_the_same(lossless, media, arguments, size):
    path, pixels, times = lossless
    expected, shown = media.read(path, size=size, **arguments)
    for source, extra in ((pixels, {"timestamps": times}), (zip(times, pixels, strict=True), {})):
        frames, given = media.read(source, size=size, **arguments, **extra)
        np.testing.assert_array_equal(frames, expected)
        np.testing.assert_allclose(given, shown, atol=1e-6)


def test_frames_of_the_models_size_are_not_touched(media):
    pixels = media.pattern(5, 32, 32)
    np.testing.assert_array_equal(media.read(pixels, size=32)[0], pixels)


def test_an_array_shows_one_frame_a_second_unless_told_otherwise(media):
    pixels = media.pattern(11)
    assert media.read(pixels, size=8)[1].tolist() == list(range(11))
    assert media.read(pixels, size=8, frames=3)[1].tolist() == [0, 5, 10]
    assert media.read(pixels, size=8, fps=0.5)[1].tolist() == [0, 2, 4, 6, 8, 10]
    assert media.read(pixels, size=8, frames=3, timestamps=[0, *range(90, 100)])[1].tolist() == [0, 0, 99]


def test_views_and_read_only_arrays_are_read(media):
    pixels = media.pattern(6)
    pixels.setflags(write=False)
    view = pixels[::2, ::-1, ::2]
    np.testing.assert_array_equal(media.read(view, size=8)[0], media.read(view.copy(), size=8)[0])


def test_resizing_is_bicubic_and_keeps_full_colour(media):
    flat = np.full((1, 90, 120, 3), (12, 200, 77), np.uint8)
    assert np.unique(media.read(flat, size=16)[0].reshape(-1, 3), axis=0).tolist() == [[12, 200, 77]]
    # Columns of red and blue by turns: halved chroma would mix neighbours.
    stripes = np.zeros((1, 64, 64, 3), np.uint8)
    stripes[:, :, 0::2], stripes[:, :, 1::2] = (255, 0, 0), (0, 0, 255)
    doubled = media.read(stripes, size=128)[0][0, 64].astype(int)
    assert (doubled[:, 0] - doubled[:, 2]).max() > 200
    assert (doubled[:, 0] - doubled[:, 2]).min() < -200


def test_an_iterable_is_read_no_further_than_needed(media):
    taken = []

    def camera():
        for i in range(10**9):
            taken.append(i)
            yield i / 10, np.full((8, 8, 3), i % 256, np.uint8)

    from storm_edge.runtime.video import read_frames

    batches = read_frames(camera(), size=8, fps=1, batch=3)
    assert next(batches).timestamps.tolist() == [0, 1, 2]
    assert len(taken) < 40


def test_an_iterable_may_fill_one_buffer_again_and_again(media):
    def camera():
        buffer = np.zeros((8, 8, 3), np.uint8)
        for i in range(20):
            buffer[:] = i
            yield float(i), buffer

    for arguments in ({"frames": 4}, {"fps": 0.2}, {}):
        frames, times = media.read(camera(), size=8, **arguments)
        assert frames[:, 0, 0, 0].tolist() == times.tolist()


def test_frames_of_an_iterable_may_change_their_size(media):
    pairs = [(0.0, np.full((8, 8, 3), 7, np.uint8)), (1.0, np.full((30, 20, 3), 9, np.uint8))]
    assert media.read(pairs, size=8)[0][:, 0, 0, 0].tolist() == [7, 9]

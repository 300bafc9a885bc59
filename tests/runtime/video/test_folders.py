"""A folder of images is a video whose frames are its images."""

import os

import numpy as np
import pytest

from storm_edge.runtime.errors import UsageError, VideoError
from storm_edge.runtime.video import read_frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory, media):
    """Twelve images, the n-th of brightness 20 n, whose names sort badly, and things that are no images."""
    path = tmp_path_factory.mktemp("folder") / "frames"
    path.mkdir()
    for i in range(12):
        picture = np.full((1, 24, 32, 3), 20 * i, np.uint8)
        codec, pixels, suffix = (("png", "rgb24", "png"), ("mjpeg", "yuvj444p", "JPG"), ("bmp", "bgr24", "bmp"))[i % 3]
        media.write(path / f"frame{i}.{suffix}", picture, codec, pixels=pixels, container="image2pipe")
    (path / "notes.txt").write_text("no image")
    (path / ".hidden.png").write_text("no image")
    (path / "folder.png").mkdir()
    return path


def test_images_come_in_natural_order_one_a_second(folder, media):
    frames, times = media.read(folder, size=8)
    assert times.tolist() == list(range(12))
    assert np.abs(frames[:, 4, 4, 0].astype(int) - 20 * np.arange(12)).max() <= 2


@pytest.mark.parametrize("arguments", [{"frames": 5}, {"frames": 1}, {"frames": 30}, {"fps": 0.4}, {"fps": 3}])
@pytest.mark.parametrize("timestamps", [None, [0, 1, 2, 3, 10, 11, 12, 40, 41, 41, 42, 80]])
def test_sampling_chooses_as_it_does_from_an_array(folder, media, arguments, timestamps):
    every, _ = media.read(folder, size=8)
    frames, times = media.read(folder, size=8, timestamps=timestamps, **arguments)
    expected, shown = media.read(every, size=8, timestamps=timestamps, **arguments)
    np.testing.assert_array_equal(times, shown)
    np.testing.assert_array_equal(frames, expected)


def test_images_that_are_not_shown_are_not_decoded(folder, media, monkeypatch):
    from storm_edge.runtime.video import folder as module

    opened = []

    class Counting(module.VideoFile):
        def __init__(self, path):
            opened.append(path.name)
            super().__init__(path)

    monkeypatch.setattr(module, "VideoFile", Counting)
    media.read(folder, size=8, frames=2)
    assert len(set(opened)) <= 4


def test_images_may_differ_in_size(tmp_path, media):
    for i, shape in enumerate([(10, 20), (33, 17), (8, 8)]):
        picture = np.full((1, *shape, 3), 60 * (i + 1), np.uint8)
        media.write(tmp_path / f"{i}.png", picture, "png", pixels="rgb24", container="image2pipe")
    assert media.read(tmp_path, size=8)[0][:, 3, 3, 0].tolist() == [60, 120, 180]


def test_a_damaged_image_is_named(tmp_path, media):
    media.write(tmp_path / "0.png", media.pattern(1), "png", pixels="rgb24", container="image2pipe")
    (tmp_path / "1.png").write_bytes((tmp_path / "0.png").read_bytes()[:60])
    with pytest.raises(VideoError, match=r"1\.png"):
        media.read(tmp_path, size=8)


def test_timestamps_that_do_not_fit_the_folder_are_refused_at_once(folder):
    with pytest.raises(UsageError, match="give one for each of 12 frames"):
        read_frames(folder, size=8, timestamps=[0, 1])


def test_a_pipe_among_the_images_is_named_and_not_waited_for(tmp_path, media):
    media.write(tmp_path / "0.png", media.pattern(1), "png", pixels="rgb24", container="image2pipe")
    os.mkfifo(tmp_path / "1.png")
    with pytest.raises(VideoError, match=r"1\.png is not a file"):
        read_frames(tmp_path, size=8)


def test_a_folder_of_links_and_a_link_to_it_are_read(folder, tmp_path, media):
    (tmp_path / "links").mkdir()
    for i in range(3):
        (tmp_path / "links" / f"{i}.png").symlink_to(folder / f"frame{3 * i}.png")
    (tmp_path / "link").symlink_to(tmp_path / "links")
    frames, _ = media.read(tmp_path / "link", size=8)
    np.testing.assert_array_equal(frames[:, 4, 4, 0], [0, 60, 120])


def test_a_link_to_a_device_and_one_that_leads_nowhere_are_named(tmp_path, media):
    media.write(tmp_path / "0.png", media.pattern(1), "png", pixels="rgb24", container="image2pipe")
    (tmp_path / "1.png").symlink_to("/dev/zero")
    with pytest.raises(VideoError, match=r"1\.png is not a file"):
        read_frames(tmp_path, size=8)
    (tmp_path / "1.png").unlink()
    (tmp_path / "1.png").symlink_to(tmp_path / "nothing.png")
    with pytest.raises(VideoError, match=r"there is no file .*1\.png"):
        read_frames(tmp_path, size=8)

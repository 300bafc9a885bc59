"""Frames become video files, whole or not at all."""

import os

import av
import numpy as np
import pytest

from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.video import read_frames
from storm_edge.runtime.video.encode import encode_video

GREY = np.full((16, 16, 3), 90, np.uint8)


def _ball():
    """A ball that crosses 32 frames of 64 x 64 over a slope of grey."""
    rows, columns = np.mgrid[:64, :64]
    frames = np.repeat((rows + columns)[None, :, :, None], 32, axis=0).repeat(3, axis=3).astype(np.uint8)
    for i, frame in enumerate(frames):
        frame[np.hypot(rows - 32, columns - 16 - i) < 8] = (220, 40, 40)
    return frames


def test_an_encoded_clip_is_read_back(tmp_path):
    frames = _ball()
    encode_video(tmp_path / "clip.mp4", frames, fps=5)
    batches = list(read_frames(tmp_path / "clip.mp4", size=64, batch=64))
    assert len(batches) == 1
    np.testing.assert_allclose(batches[0].timestamps, np.arange(32) / 5, atol=1e-6)
    assert np.abs(batches[0].frames.astype(int) - frames).mean() < 4
    assert os.listdir(tmp_path) == ["clip.mp4"]


def test_rgb_is_lossless_where_asked(tmp_path):
    frames = _ball()[:4]
    encode_video(tmp_path / "a.mp4", frames, codec="libx264rgb", options={"qp": "0"})
    np.testing.assert_array_equal(next(read_frames(tmp_path / "a.mp4", size=64)).frames, frames)


def test_the_file_is_mp4_whatever_its_name_and_any_rate_is_kept(tmp_path):
    encode_video(tmp_path / "video", [GREY] * 5, fps=29.97)
    with av.open(str(tmp_path / "video")) as container:
        assert "mp4" in container.format.name
        assert float(container.streams.video[0].average_rate) == pytest.approx(29.97)


def test_what_fails_leaves_nothing_behind_and_the_old_file_in_place(tmp_path):
    path = tmp_path / "a.mp4"
    path.write_bytes(b"old")

    def breaking():
        yield GREY
        raise RuntimeError("the camera broke")

    with pytest.raises(RuntimeError, match="camera"):
        encode_video(path, breaking())
    for frames in ([], [GREY, GREY[:8]], [GREY.astype(np.float32)], [GREY[:15]], [GREY[..., 0]]):
        with pytest.raises(UsageError, match=r"^[^\n]*: [^\n]*\.$"):
            encode_video(path, frames)
    assert os.listdir(tmp_path) == ["a.mp4"]
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("codec", ["nothing", "aac", "gif", "theora"])
def test_codecs_that_write_no_mp4_video_are_refused(tmp_path, codec):
    with pytest.raises(UsageError, match=codec):
        encode_video(tmp_path / "a.mp4", [GREY], codec=codec)


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    for path in (tmp_path / "no" / "folder.mp4", tmp_path):
        with pytest.raises(UsageError, match="cannot write"):
            encode_video(path, [GREY])
    with pytest.raises(UsageError, match="fps is"):
        encode_video(tmp_path / "a.mp4", [GREY], fps=0)

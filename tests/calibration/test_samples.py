from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from storm_edge.calibration.samples import clips_of_folder, find_videos
from storm_edge.runtime.errors import UsageError, VideoError
from storm_edge.runtime.video.encode import encode_video


def image(path: Path, value: int) -> None:
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w", format="image2") as out:
        stream = out.add_stream("png", rate=1)
        stream.width = stream.height = 32
        stream.pix_fmt = "rgb24"
        out.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), value, np.uint8), format="rgb24")))
        out.mux(stream.encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.mp4", "b.mp4"):
        encode_video(tmp_path / name, np.random.default_rng(0).integers(0, 256, (20, 64, 64, 3), dtype=np.uint8))
    for i in range(3):
        image(tmp_path / "images" / f"{i}.png", 50 * i)
        image(tmp_path / f"{i}.png", 50 * i)
    (tmp_path / "questions.jsonl").write_text("{}")
    return tmp_path


def test_videos_folders_of_images_and_images_are_found_and_notes_are_not(folder: Path) -> None:
    assert [p.relative_to(folder).as_posix() for p in find_videos(folder)] == ["a.mp4", "b.mp4", "images", "."]


def test_every_video_gives_its_share_in_clips_of_one_shape(folder: Path) -> None:
    clips = list(clips_of_folder(folder, samples=9, frames=4, size=16))
    assert [c.shape for c in clips] == 9 * [(4, 16, 16, 3)]
    assert [clip.max() > 110 for clip in clips] == 4 * [True] + 5 * [False]  # 2 of each video
    assert list(clips[-1][:, 0, 0, 0]) == [50, 50, 50, 100]  # the last third of the images in the folder itself


def test_a_folder_without_videos_and_a_file_that_is_none_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no folder"):
        find_videos(tmp_path / "absent")
    with pytest.raises(UsageError, match="no videos and no images"):
        find_videos(tmp_path)
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    with pytest.raises(VideoError, match=r"a\.mp4"):
        list(clips_of_folder(tmp_path, samples=8, frames=4, size=16))

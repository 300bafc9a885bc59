from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest

from storm_edge.cli.recording import Recorder
from storm_edge.runtime.answer.watch import Moment
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.video.resizing import Pixels

LINE: dict[str, object] = {"wall_time": "2026-11-29T10:00:00.000+00:00", "answer": "two"}


def moment(shapes: list[tuple[int, int]]) -> Moment:
    pictures = tuple(np.full((*shape, 3), 10 * i % 250, np.uint8) for i, shape in enumerate(shapes))
    return Moment(np.arange(len(shapes)) / 4, 0.1, len(shapes), 0, "", False, pictures)


def decoded(path: Path) -> list[Pixels]:
    with av.open(str(path)) as container:
        return [np.asarray(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


def test_an_answer_is_kept_as_clip_sheet_and_line(tmp_path: Path) -> None:
    Recorder(tmp_path / "new" / "kept").keep(LINE, moment([(60, 80)] * 20))
    stem = tmp_path / "new" / "kept" / "2026-11-29T10-00-00.000Z"
    clip = decoded(stem.with_name(stem.name + ".mp4"))
    assert [frame.shape for frame in clip] == [(60, 80, 3)] * 20
    assert all(abs(int(frame.mean()) - 10 * i) < 6 for i, frame in enumerate(clip))
    (sheet,) = decoded(stem.with_name(stem.name + ".png"))
    assert sheet.shape == (3 * 60, 8 * 80, 3)
    assert sheet[60 + 30, 80 + 40, 0] == 90
    assert json.loads(stem.with_name(stem.name + ".json").read_text()) == LINE
    assert len(list(stem.parent.iterdir())) == 3


def test_pictures_of_another_resolution_are_brought_to_that_of_the_last(tmp_path: Path) -> None:
    Recorder(tmp_path).keep(LINE, moment([(60, 80), (80, 60), (40, 60)]))
    assert [frame.shape for frame in decoded(next(tmp_path.glob("*.mp4")))] == [(40, 60, 3)] * 3


def test_a_sheet_of_a_long_window_has_some_of_its_pictures(tmp_path: Path) -> None:
    Recorder(tmp_path).keep(LINE, moment([(8, 8)] * 500))
    assert decoded(next(tmp_path.glob("*.png")))[0].shape == (64, 64, 3)


def test_one_frame_is_kept_too(tmp_path: Path) -> None:
    Recorder(tmp_path).keep(LINE, moment([(20, 20)]))
    assert len(decoded(next(tmp_path.glob("*.mp4")))) == 1


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/storm"])
def test_what_is_no_folder_to_write_to_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot record in"):
        Recorder(tmp_path / place)

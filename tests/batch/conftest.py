"""A small library of clips, made once."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path

import pytest

from storm_edge.demo.dataset import samples
from storm_edge.runtime.video.encode import encode_video

pytest.importorskip("pyarrow")
CLIPS = 6


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with clips 0.mp4 to 5.mp4 and table.jsonl: video, question, and `truth`; do not change it."""
    folder = tmp_path_factory.mktemp("library")
    rows = []
    for i, sample in enumerate(islice(samples(frames=8, size=64), CLIPS)):
        encode_video(folder / f"{i}.mp4", sample.frames)
        rows.append({"video": f"{i}.mp4", "question": sample.question.text, "truth": sample.question.answer})
    (folder / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder

from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pytest

from storm_edge.batch import Predictor
from storm_edge.batch.rows import COLUMNS
from storm_edge.runtime import SamplingOptions, load
from storm_edge.runtime.errors import BundleError


def test_a_batch_of_columns_becomes_columns_of_answers(trained: Path, library: Path) -> None:
    rows = [json.loads(line) for line in (library / "table.jsonl").read_text().splitlines()]
    predictor = Predictor(str(trained), frames=8, max_tokens=8)
    videos = [str(library / rows[i]["video"]) for i in (0, 0, 1)] + ["/nowhere.mp4"]
    questions = [rows[0]["question"], "How many objects are there?", rows[1]["question"], "Why?"]
    given = predictor({"video": videos, "question": questions})
    assert tuple(given) == COLUMNS
    pipeline = load(trained)
    for i in range(3):
        video = pipeline.open(videos[i], frames=8)
        assert given["answer"][i] == video.ask(questions[i], SamplingOptions(max_tokens=8)).read()
        assert given["timestamps"][i] == video.timestamps.tolist()
    assert given["seconds"][0]["vision"] > 0
    assert given["seconds"][1]["vision"] == 0, "the second question shares the first's encoding"
    assert given["error"][:3] == [None] * 3
    assert given["answer"][3] is None
    assert given["error"][3] == "there is no file /nowhere.mp4: check the path."


def test_videos_and_bundles_come_from_where_fsspec_reads(trained: Path, library: Path) -> None:
    fs = fsspec.filesystem("memory")
    fs.put(str(trained), "/models/demo", recursive=True)
    fs.pipe_file("/clips/a.mp4", (library / "0.mp4").read_bytes())
    predictor = Predictor("memory://models/demo", frames=8, max_tokens=8)
    here = Predictor(str(trained), frames=8, max_tokens=8)
    question = ["How many objects are there?"]
    far = predictor({"video": ["memory://clips/a.mp4", "memory://clips/none.mp4"], "question": question * 2})
    assert far["answer"][0] == here({"video": [str(library / "0.mp4")], "question": question})["answer"][0]
    assert "cannot be fetched" in far["error"][1]
    with pytest.raises(BundleError, match="cannot be fetched"):
        Predictor("memory://models/none")


def test_frames_that_do_not_fit_are_an_error_of_the_row(trained: Path, library: Path) -> None:
    predictor = Predictor(str(trained), frames=8, sample=99)
    assert predictor({"video": [str(library / "0.mp4")], "question": ["Why?"]})["error"] == [None]
    many = Predictor(str(trained), frames=90_000)
    assert (
        "visual tokens, the language model holds"
        in many({"video": [str(library / "0.mp4")], "question": ["Why?"]})["error"][0]
    )

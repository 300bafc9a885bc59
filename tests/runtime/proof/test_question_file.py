from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.proof.question_file import read_questions


def _write(folder: Path, *rows: object) -> None:
    (folder / "a.mp4").write_bytes(b"x")
    (folder / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.mark.parametrize(
    "row",
    [
        {"video": "a.mp4", "question": "?", "choices": ["x", "y"], "answer": "y", "type": "t"},
        {"videoID": "a", "question": "?", "options": ["A. x", "B. y"], "answer": "B", "task_type": "t"},
        {"video": "a.mp4", "question": "?", "candidates": ["x", "y"], "answer": "y", "question_type": "t"},
        {
            "video_path": "a.mp4",
            "question": "?",
            "candidates": ["x", "y"],
            "correct_choice": 1,
            "question_category": "t",
        },
    ],
    ids=["ours", "VideoMME", "MVBench and MLVU", "LongVideoBench"],
)
def test_the_benchmarks_forms_mean_the_same(tmp_path: Path, row: dict[str, object]) -> None:
    _write(tmp_path, row)
    (item,) = read_questions(tmp_path)
    assert (item.video, item.answer, item.choices, item.type) == (str(tmp_path / "a.mp4"), "y", ("x", "y"), "t")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"video": "a.mp4", "question": "?"}, "no answer"),
        ({"video": "b.mp4", "question": "?", "answer": "x"}, "there is no video"),
        ({"video": "a.mp4", "question": "?", "answer": "z", "choices": ["x", "y"]}, "none of the choices"),
        ({"video": "a.mp4", "question": "?", "answer": "x", "choices": "xy"}, "no list"),
        (["a.mp4"], "no JSON object"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, row: object, message: str) -> None:
    _write(tmp_path, {"video": "a.mp4", "question": "?", "answer": "x"}, row)
    with pytest.raises(UsageError, match=rf"questions.jsonl, line 2.*{message}"):
        list(read_questions(tmp_path))


def test_a_folder_without_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no \.jsonl file"):
        list(read_questions(tmp_path))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("[" * 99_999, "is not JSON"),
        ("9" * 5000, "is not JSON"),
        (json.dumps({"video": "x" * 5000, "question": "?", "answer": "x"}), "is no name of a file"),
        (json.dumps({"video": "a\0b.mp4", "question": "?", "answer": "x"}), "video"),
        (json.dumps({"video": "**", "question": "?", "answer": "x"}), "there is no video"),
        (json.dumps({"video": "pipe", "question": "?", "answer": "x"}), "there is no video"),
    ],
    ids=["deep", "huge", "long", "NUL", "pattern", "pipe"],
)
def test_a_hostile_line_is_named_too(tmp_path: Path, line: str, message: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "q.jsonl").write_text(line)
    with pytest.raises(UsageError, match=rf"q\.jsonl, line 1.*{message}"):
        list(read_questions(tmp_path))


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "q.jsonl")
    with pytest.raises(UsageError, match=r"q\.jsonl is no file"):
        list(read_questions(tmp_path))


def test_a_folder_that_cannot_be_listed_is_not_called_empty(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be listed"):
        list(read_questions(tmp_path / "none"))

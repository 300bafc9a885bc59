from __future__ import annotations

import json
from pathlib import Path

import fsspec
import pyarrow as pa
import pytest
from pyarrow import parquet as pq

from storm_edge.batch.library import LONGEST, Item, read_library
from storm_edge.runtime.errors import UsageError


def test_a_folder_is_searched_for_videos_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.mp4", "a.MKV", "notes.md", "deep/er/c.webm"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    items = read_library(str(tmp_path), ["Why?"])
    assert [Path(item.video).name for item in items] == ["a.MKV", "b.mp4", "c.webm"]
    assert all(item.questions == ("Why?",) and item.location == item.video for item in items)


def test_a_pattern_and_one_video(tmp_path: Path) -> None:
    for name in ("a1.mp4", "a2.mp4", "b1.mp4", "odd[1].mp4"):
        (tmp_path / name).touch()
    assert [Path(i.video).name for i in read_library(f"{tmp_path}/a*.mp4", ["?"])] == ["a1.mp4", "a2.mp4"]
    assert len(read_library(f"{tmp_path}/b1.mp4", ["?"])) == 1
    assert read_library(f"{tmp_path}/odd[1].mp4", ["?"])[0].video.endswith("odd[1].mp4")


def test_a_list_is_relative_to_where_it_is_and_names_each_video_once(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.mp4\n\n  sub/b.mp4  \na.mp4\n/abs/c.mp4\ns3://bucket/d.mp4\n")
    items = read_library(str(tmp_path / "list.txt"), ["Why?", "Why?", "Who?"])
    assert items == [
        Item(video, place, ("Why?", "Who?"))
        for video, place in {
            "a.mp4": f"{tmp_path}/a.mp4",
            "sub/b.mp4": f"{tmp_path}/sub/b.mp4",
            "/abs/c.mp4": "/abs/c.mp4",
            "s3://bucket/d.mp4": "s3://bucket/d.mp4",
        }.items()
    ]


def test_questions_come_from_a_column_from_a_file_and_as_text(tmp_path: Path) -> None:
    rows = [{"video": "a.mp4", "q": "One?"}, {"video": "b.mp4", "q": ["Two?", "Three?"]}, {"video": "a.mp4", "q": None}]
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "q.txt").write_text("Four?\nOne?\n")
    items = read_library(str(tmp_path / "t.jsonl"), ["q", str(tmp_path / "q.txt")])
    assert [item.questions for item in items] == [("One?", "Four?"), ("Two?", "Three?", "Four?", "One?")]


def test_a_parquet_table_and_storage_behind_a_url() -> None:
    table = pa.table({"video": ["a.mp4", "b.mp4"], "ask": ["One?", "Two?"]})
    with fsspec.open("memory://tables/t.parquet", "wb") as file:
        pq.write_table(table, file)
    items = read_library("memory://tables/t.parquet", ["ask"])
    assert [(i.location, i.questions) for i in items] == [
        ("memory://tables/a.mp4", ("One?",)),
        ("memory://tables/b.mp4", ("Two?",)),
    ]
    fsspec.filesystem("memory").pipe_file("/clips/x.mp4", b"")
    assert read_library("memory://clips", ["?"])[0].video == "memory:///clips/x.mp4"


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("t.jsonl", '{"video": "a"}\n{"vid', "line 2 is no JSON"),
        ("t.jsonl", "[1]", "line 1 is no object"),
        ("t.jsonl", '{"video": 3, "q": "?"}', "row 1 names no video"),
        ("t.jsonl", '{"video": "a", "q": 3}', "row 1, q: '3' is no question"),
        ("t.jsonl", '{"video": "a", "q": "  "}', "is no question"),
        ("t.jsonl", "[" * 100_000, "line 1 is no JSON"),
        ("t.jsonl", "", "has no rows"),
        ("t.parquet", "PAR1", "cannot be read as Parquet"),
        ("t.txt", "", "names no videos"),
        ("t.txt", "x" * (LONGEST + 1), "is it a list"),
    ],
)
def test_a_list_that_is_none_is_refused_in_one_line(tmp_path: Path, name: str, text: str, words: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UsageError, match=words) as told:
        read_library(str(tmp_path / name), ["q" if '"q"' in text else "Why?"])
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 600


def test_a_table_without_videos_names_what_it_has(tmp_path: Path) -> None:
    pq.write_table(pa.table({"path": ["a"], "q": ["?"]}), tmp_path / "t.parquet")
    with pytest.raises(UsageError, match='no column "video" but path, q'):
        read_library(str(tmp_path / "t.parquet"), ["q"])


@pytest.mark.parametrize("videos", ["missing.txt", "nowhere://x/", "*.mp4"])
def test_what_is_not_there_is_said(tmp_path: Path, videos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="check the path"):
        read_library(videos, ["Why?"])


def test_no_question_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").touch()
    with pytest.raises(UsageError, match="there is no question"):
        read_library(str(tmp_path), [])
    with pytest.raises(UsageError, match="cannot be read"):
        read_library(str(tmp_path), ["questions.txt"])

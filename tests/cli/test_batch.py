from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from storm_edge.cli.batch import command
from storm_edge.runtime.errors import BuildError, UsageError
from storm_edge.runtime.video.encode import encode_video

pq = pytest.importorskip("pyarrow.parquet")


def _run(*arguments: str | Path, quiet: bool = False) -> str:
    given = [str(a) for a in arguments]
    result = CliRunner().invoke(command, given, obj={"quiet": quiet}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_folder_is_asked_once_and_then_only_what_is_new(bundle: Path, tmp_path: Path) -> None:
    clips, out = tmp_path / "clips", tmp_path / "answers"
    clips.mkdir()
    for name in "ab":
        encode_video(clips / f"{name}.mp4", np.zeros((8, 64, 64, 3), np.uint8))
    (clips / "bad.mp4").write_bytes(b"no video")
    fixed = ["--frames", "4", "--max-tokens", "3", "--workers", "1", "-o", out]
    told = _run(bundle, "--videos", clips, "--questions", "Why?", "--questions", "Who?", *fixed)
    assert "6 rows of 3 videos" in told
    assert "2 x" in told
    rows = pq.read_table(out).to_pylist()
    assert len(rows) == 6
    assert sum(row["error"] is None for row in rows) == 4
    encode_video(clips / "c.mp4", np.zeros((8, 64, 64, 3), np.uint8))
    assert "2 rows of 1 videos" in _run(bundle, "--videos", clips, "--questions", "Why?", "--questions", "Who?", *fixed)
    assert f"nothing is missing: {out} has 8 rows, 2 of them errors" in _run(
        bundle, "--videos", clips, "--questions", "Why?", *fixed
    )


def test_a_run_ends_at_its_limit_of_errors_and_keeps_what_it_has(bundle: Path, tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"{i}.mp4").write_bytes(b"no video")
    out = tmp_path / "out"
    with pytest.raises(BuildError, match="rows have an error, --max-errors allows 0"):
        _run(bundle, "--videos", tmp_path, "--questions", "?", "-o", out, "--max-errors", "0", "--format", "jsonl")
    assert [json.loads(line)["answer"] for p in out.glob("*.jsonl") for line in p.read_text().splitlines()] == [None]


def test_the_schema_of_a_row_is_printed(bundle: Path) -> None:
    assert set(json.loads(_run(bundle, "--json-schema"))["properties"]) >= {"video", "question", "answer", "error"}


def test_what_is_missing_is_said(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="needs --videos, --questions and -o"):
        _run(bundle)
    with pytest.raises(UsageError, match="exclude each other"):
        _run(bundle, "--videos", "a", "-o", "b", "--questions", "?", "--frames", "3", "--fps", "1")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs fsspec: pip install 'storm-edge\[batch\]'"):
        _run(bundle, "--videos", "a", "-o", "b", "--questions", "?")

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.proof.result_log import ResultLog

ABOUT = {"engine": "cpu-fp32"}
ROW = {"id": "a", "type": "t", "expected": "x", "predicted": "y", "right": False}


def test_what_was_written_is_there_again(tmp_path: Path) -> None:
    ResultLog(tmp_path / "log", ABOUT).append(ROW)
    assert ResultLog(tmp_path / "log", ABOUT).rows == [ROW]


@pytest.mark.parametrize(
    "row",
    ["[", "[" * 99_999, "[]", "1", "9" * 5000, "{}", json.dumps(ROW | {"more": 1}), json.dumps(ROW | {"right": "yes"})],
    ids=lambda row: row[:20],
)
def test_a_line_that_is_no_result_is_refused_as_such(tmp_path: Path, row: str) -> None:
    (tmp_path / "log").write_text(f"{json.dumps(ABOUT)}\n{row}\n")
    with pytest.raises(UsageError, match="holds no results"):
        ResultLog(tmp_path / "log", ABOUT)


def test_a_pipe_and_a_folder_are_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "log")
    for path in (tmp_path / "log", tmp_path):
        with pytest.raises(UsageError, match="is no file"):
            ResultLog(path, ABOUT)

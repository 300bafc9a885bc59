from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from storm_edge.demo.encode import encode_video

STORM = Path(sys.executable).parent / "storm"


def test_a_file_is_watched_to_its_end_with_a_line_for_every_answer(bundle: Path, tmp_path: Path) -> None:
    encode_video(tmp_path / "v.mp4", np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8))
    options = ["--every", "0.5", "--fps", "8", "--window", "1s", "--max-tokens", "3", "--json"]
    done = subprocess.run(
        [STORM, "-q", "watch", bundle, tmp_path / "v.mp4", "What?", *options], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    last = lines[-1]
    assert last["ended"]
    assert last["seen"] + last["dropped"] == 12
    assert last["stream_time"] == pytest.approx(11 / 8)
    assert last["frames"] == min(last["seen"], 8)
    assert all(0 <= line["age"] <= line["latency"] for line in lines)


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("ftp://host/x", [], "ftp:// is not watched here"),
        ("nowhere.mp4", [], "there is no file nowhere.mp4"),
        ("-", ["--window", "much"], "'much' is no window"),
        ("-", ["--window", "0s"], "'0s' is no window"),
        ("-", ["--every", "0"], "0.0 is not in the range"),
        ("-", ["--fps", "-2"], "fps is -2.0"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    bundle: Path, tmp_path: Path, source: str, options: list[str], said: str
) -> None:
    done = subprocess.run(
        [STORM, "-q", "watch", bundle, source, "What?", *options], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode in (1, 2), done.stderr.count("\n")) == (True, 1)
    assert said in done.stderr

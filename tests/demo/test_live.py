from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest


def demo(bundle: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "storm_edge.demo.live", bundle, *options], capture_output=True, text=True, timeout=120
    )


def test_answers_about_a_stream_in_real_time_stand_beside_the_truth(trained: Path) -> None:
    done = demo(trained, "--seconds", "6", "--seed", "0")
    assert (done.returncode, done.stderr) == (0, "")
    question, *lines = done.stdout.splitlines()
    assert question == "question: How many objects are there?"
    assert lines
    assert all("truth: three  right" in line for line in lines)
    assert float(lines[-1].split()[0]) == pytest.approx(5.75)


def test_what_the_command_refuses_is_passed_on(tmp_path: Path) -> None:
    done = demo(tmp_path / "nowhere", "--seconds", "2")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "nowhere" in done.stderr

"""A slice of `make fuzz`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).with_name("run.py")


def test_whatever_is_mutated_ends_in_an_answer_or_one_line(checkpoint: Path, calibrated: Path) -> None:
    command = [sys.executable, RUN, "--videos", "60", "--models", "12", "--calibrations", "40"]
    command += ["--checkpoint", checkpoint, "--bundle", calibrated]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout + done.stderr
    videos, models, calibrations = done.stdout.splitlines()
    assert videos.startswith("videos: 60 cases")
    assert models.startswith("models: 12 cases")
    assert calibrations.startswith("calibrations: 40 cases")

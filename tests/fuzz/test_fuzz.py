"""A slice of `make fuzz`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

RUN = Path(__file__).with_name("run.py")


def test_mutated_videos_checkpoints_and_bundles_end_in_an_answer_or_one_line(checkpoint: Path, bundle: Path) -> None:
    command = [sys.executable, RUN, "--videos", "60", "--models", "12", "--checkpoint", checkpoint, "--bundle", bundle]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout + done.stderr
    videos, models = done.stdout.splitlines()
    assert videos.startswith("videos: 60 cases")
    assert models.startswith("models: 12 cases")

"""Where TensorRT's timings of kernels are kept, by version and GPU."""

from __future__ import annotations

import re
from pathlib import Path

from storm_edge.export.build.goal import Goal
from storm_edge.runtime.machine.packages import require_package
from storm_edge.runtime.machine.user_folders import cache_folder


def timing_cache(goal: Goal) -> Path:
    """The user's own timings of this TensorRT on this GPU: those that came with a bundle would be deserialized."""
    gpu = goal.machine.gpus[0]
    words = re.sub(r"[^A-Za-z0-9.]+", "-", f"{goal.runner} {require_package(goal.runner)} {gpu.name} {gpu.sm}")
    return cache_folder() / "timing" / f"{words}.cache"

"""Where TensorRT's timings of kernels are kept, by version and GPU."""

from __future__ import annotations

import re
from pathlib import Path

from storm_edge.export.build.goal import Goal
from storm_edge.runtime.errors import TargetError
from storm_edge.runtime.machine.packages import installed_tensorrt
from storm_edge.runtime.machine.user_folders import cache_folder
from storm_edge.runtime.runners import RUNNERS


def require_installed(runner: str) -> str:
    """The version of a runner's installed TensorRT; raises TargetError where there is none."""
    package, extra = RUNNERS[runner].package, RUNNERS[runner].extra
    version = installed_tensorrt(package)
    if version is None:
        jetpack = "JetPack brings it (see docs/jetson.md), elsewhere " if package == "tensorrt" else ""
        raise TargetError(f"{package} is not installed: {jetpack}pip install 'storm-edge[{extra}]'.")
    return version


def timing_cache(goal: Goal) -> Path:
    """The user's own timings of this TensorRT on this GPU: those that came with a bundle would be deserialized."""
    gpu = goal.machine.gpus[0]
    words = re.sub(r"[^A-Za-z0-9.]+", "-", f"{goal.runner} {require_installed(goal.runner)} {gpu.name} {gpu.sm}")
    return cache_folder() / "timing" / f"{words}.cache"

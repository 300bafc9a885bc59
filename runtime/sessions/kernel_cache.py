"""The kernels that TensorRT for RTX makes when an engine runs, kept for the next time.

Its engines hold no finished kernels: they are compiled for the GPU and the shapes at hand, and the first run waits for
that.
Written from the documentation of 1.7; no machine of ours has run it yet.
"""

from __future__ import annotations

import hashlib
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Any

from storm_edge.runtime.machine.user_folders import cache_folder, write_private


def context_config(trt: Any, handle: Any, engine: Path, owner: object) -> Any:
    """What an engine's contexts are made with: the way they get memory, and in TensorRT for RTX its kernels of before.

    Its kernels are written to the user's own cache when `owner` is dropped, at the latest when the process ends.
    TensorRT refuses those of another version, driver or GPU itself; they are then made again.
    """
    strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    if not hasattr(trt, "IRuntimeCache"):
        return strategy
    config = handle.create_runtime_config()
    config.set_execution_context_allocation_strategy(strategy)
    kernels = config.create_runtime_cache()
    if kernels is None:
        return config
    path = kernels_path(engine)
    with suppress(OSError):
        kernels.deserialize(path.read_bytes())
    if config.set_runtime_cache(kernels):
        weakref.finalize(owner, _keep, kernels, path)
    return config


def kernels_path(engine: Path) -> Path:
    """Where an engine's kernels are kept: they are of its user and machine, and never come with a bundle."""
    return cache_folder() / "kernels" / f"{hashlib.sha256(str(engine.resolve()).encode()).hexdigest()[:32]}.cache"


def _keep(kernels: Any, path: Path) -> None:
    blob = kernels.serialize()
    if blob is not None:
        with suppress(OSError):  # a home that cannot be written to: they are made again
            write_private(path, bytes(blob))

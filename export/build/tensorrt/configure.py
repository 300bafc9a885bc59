"""What a builder is told: optimization profiles, memory, kernels timed before, GPUs that are not here."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from storm_edge.export.build.tensorrt.callbacks import make_monitor
from storm_edge.export.build.tensorrt.compile_job import CompileJob
from storm_edge.runtime.machine.user_folders import write_private


def configure(trt: Any, builder: Any, network: Any, job: CompileJob) -> Any:
    """The builder's configuration for a job; raises ValueError for an input without a profile, or a wrong one."""
    config = builder.create_builder_config()
    # The engine inspector tells plugins and fused attention from the rest by it; it changes no kernel.
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
    # Of TensorRT for RTX, whose engines may else take memory of their own while they run, which ends a capture.
    own_memory = getattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION", None)
    if job.captured and own_memory is not None:
        config.set_flag(own_memory)
    if job.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job.workspace_bytes)
    if job.tactic_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.TACTIC_DRAM, job.tactic_bytes)
    if job.timing_cache is not None:
        use_timing_cache(config, Path(job.timing_cache))
    if job.compute_capabilities:  # of TensorRT for RTX; without them it builds for the GPU it runs on
        config.num_compute_capabilities = len(job.compute_capabilities)
        for i, sm in enumerate(job.compute_capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{sm}"), i)
    if hasattr(config, "progress_monitor"):
        config.progress_monitor = make_monitor(trt)
    dynamic = [t for t in map(network.get_input, range(network.num_inputs)) if -1 in tuple(t.shape)]
    for number, inputs in enumerate(job.profiles if dynamic else []):
        profile = builder.create_optimization_profile()
        profile.extra_memory_target = 0.0  # a hint to share the first profile's weights, where the builder can
        for tensor in dynamic:
            if tensor.name not in inputs:
                raise ValueError(f"input {tensor.name} {tuple(tensor.shape)} has no optimization profile {number}")
            shapes = inputs[tensor.name]
            profile.set_shape(tensor.name, shapes.min, shapes.opt, shapes.max)
        if config.add_optimization_profile(profile) != number:
            raise ValueError(f"optimization profile {number} was refused: {inputs}")
    if dynamic and not job.profiles:
        raise ValueError(f"input {dynamic[0].name} {tuple(dynamic[0].shape)} has no optimization profile")
    return config


def use_timing_cache(config: Any, path: Path) -> None:
    """Let a builder begin with the timings at `path`, or with none where these are damaged or another TensorRT's.

    Both calls may fail without an exception: one gives None, the other False.
    """
    with suppress(OSError):
        if path.exists() and _set(config, path.read_bytes()):
            return
    _set(config, b"")  # where even this fails the builder has its own, which is not kept


def keep_timing_cache(config: Any, path: Path) -> None:
    """Write a builder's timings to `path`; without them, or in a home that cannot be written to, nothing happens."""
    cache = config.get_timing_cache()
    blob = cache.serialize() if cache else None
    if blob is not None:
        with suppress(OSError):  # they are measured again
            write_private(path, bytes(blob))


def _set(config: Any, blob: bytes) -> bool:
    cache = config.create_timing_cache(blob)
    return cache is not None and bool(config.set_timing_cache(cache, ignore_mismatch=False))

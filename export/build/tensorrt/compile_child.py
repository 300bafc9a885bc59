"""The child process that compiles one graph: `python -m storm_edge.export.build.tensorrt.compile_child JOB RESULT`.

One code path for TensorRT 10.3 to 11.x and TensorRT for RTX: strongly typed networks, explicit precisions in the graph.
Builders can abort their process, so this one is not the user's. Prints a line for every phase it enters.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import re
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from storm_edge.export.build.tensorrt.compile_job import CompileJob, CompileResult, Failure
from storm_edge.runtime.machine.memory import peak_memory_bytes
from storm_edge.runtime.machine.user_folders import write_private

_PR_SET_PDEATHSIG = 1  # of Linux' prctl
# The builder's words for what went wrong; the first that matches decides.
_WORDS: tuple[tuple[Failure, str], ...] = (
    ("memory", r"out of memory|OutOfMemory|insufficient (workspace|memory)|requested size was|std::bad_alloc"),
    ("plugin", r"Plugin not found|No importer registered|No Op registered|getPluginCreator|could not find plugin"),
    (
        "type",
        r"HW-specific datatype|unsupported (data ?)?type|is not supported for type|BF16 .*not supported",
    ),
    ("tactic", r"Could not find any implementation|dedicated kernel|No implementation|no tactic"),
)


def classify(messages: list[str], default: Failure) -> Failure:
    """The kind of failure that the builder's messages describe."""
    text = "\n".join(messages)
    return next((kind for kind, pattern in _WORDS if re.search(pattern, text, re.IGNORECASE)), default)


class CompileError(Exception):
    """Compiling ended without an engine; `kind` says in which way."""

    def __init__(self, kind: Failure, message: str):
        super().__init__(message)
        self.kind = kind


def compile_engine(job: CompileJob) -> CompileResult:
    """Compile and write the engine; raises CompileError."""
    try:
        trt: Any = importlib.import_module(job.package)
    except ImportError as e:
        raise CompileError("missing package", str(e)) from e
    logger = _make_logger(trt)
    trt.init_libnvinfer_plugins(logger, "")
    builder = trt.Builder(logger)
    for library in job.plugins:
        if builder.get_plugin_registry().load_library(library) is None:  # a missing file is not an error to it
            raise CompileError("plugin", f"{library} cannot be loaded as a plugin library")
    # TensorRT 11 knows no other kind of network and has no such flag.
    flag = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    network = builder.create_network(0 if flag is None else 1 << int(flag))
    parser = trt.OnnxParser(network, logger)
    if not parser.parse(Path(job.graph).read_bytes(), job.graph):
        errors = [parser.get_error(i).desc() for i in range(parser.num_errors)]
        raise CompileError(classify([*errors, *logger.errors], "parse"), "; ".join(dict.fromkeys(errors)))
    dropped = [m for m in logger.messages if "Unused Input" in m]
    if dropped:
        raise CompileError("unused input", "; ".join(dropped))
    config = _configure(trt, builder, network, job)
    start = time.perf_counter()
    engine = builder.build_serialized_network(network, config)
    if engine is None:
        raise CompileError(classify(logger.errors, "build"), "; ".join(dict.fromkeys(logger.errors)))
    Path(job.engine).write_bytes(memoryview(engine))
    _keep_timing_cache(config, job)
    return CompileResult(
        version=trt.__version__,
        seconds=time.perf_counter() - start,
        engine_bytes=Path(job.engine).stat().st_size,
        peak_memory_bytes=peak_memory_bytes(),
        plugin_layers=[
            network.get_layer(i).name
            for i in range(network.num_layers)
            if network.get_layer(i).type in _plugin_types(trt)
        ],
    )


def _configure(trt: Any, builder: Any, network: Any, job: CompileJob) -> Any:
    config = builder.create_builder_config()
    if job.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, job.workspace_bytes)
    if job.timing_cache is not None:
        path = Path(job.timing_cache)
        cache = config.create_timing_cache(path.read_bytes() if path.exists() else b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    if job.compute_capabilities:  # of TensorRT for RTX; without them it builds for the GPU it runs on
        config.num_compute_capabilities = len(job.compute_capabilities)
        for i, sm in enumerate(job.compute_capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{sm}"), i)
    if hasattr(config, "progress_monitor"):
        config.progress_monitor = _make_monitor(trt)
    profile = builder.create_optimization_profile()
    for i in range(network.num_inputs):
        tensor = network.get_input(i)
        if -1 in tuple(tensor.shape):
            if tensor.name not in job.profiles:
                raise CompileError("build", f"input {tensor.name} {tuple(tensor.shape)} has no optimization profile")
            shapes = job.profiles[tensor.name]
            profile.set_shape(tensor.name, shapes.min, shapes.opt, shapes.max)
    config.add_optimization_profile(profile)
    return config


def _keep_timing_cache(config: Any, job: CompileJob) -> None:
    if job.timing_cache is not None:
        with suppress(OSError):  # a home that cannot be written to: they are measured again
            write_private(Path(job.timing_cache), bytes(config.get_timing_cache().serialize()))


def _plugin_types(trt: Any) -> set[Any]:
    return {getattr(trt.LayerType, name) for name in ("PLUGIN_V2", "PLUGIN_V3") if hasattr(trt.LayerType, name)}


def _make_logger(trt: Any) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]  # a class of whichever package was asked for
        """Keeps what the builder says."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.messages: list[str] = []
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT."""
            if severity <= trt.ILogger.WARNING:
                self.messages.append(message)
            if severity <= trt.ILogger.ERROR:
                self.errors.append(message)

    return Logger()


def _make_monitor(trt: Any) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Prints every phase once."""

        def phase_start(self, name: str, parent: str | None, steps: int) -> None:
            """Called by TensorRT."""
            print(name, flush=True)

        def step_complete(self, name: str, step: int) -> bool:
            """Called by TensorRT; True goes on."""
            return True

        def phase_finish(self, name: str) -> None:
            """Called by TensorRT."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)

    return Monitor()


def _end_with_parent() -> None:
    """Let the kernel end this process when the one that wants its engine is gone; a build holds gigabytes."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def main() -> None:
    """Compile the job named on the command line and write its result."""
    _end_with_parent()
    job = CompileJob.model_validate(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))
    try:
        result = compile_engine(job)
    except CompileError as e:
        result = CompileResult(failure=e.kind, message=" ".join(str(e).split()))
    Path(sys.argv[2]).write_text(result.model_dump_json(), encoding="utf-8")


if __name__ == "__main__":
    main()

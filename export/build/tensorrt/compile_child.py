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
from pathlib import Path
from typing import Any

from storm_edge.export.build.tensorrt.callbacks import make_logger, make_writer
from storm_edge.export.build.tensorrt.compile_job import CompileJob, CompileResult, Failure
from storm_edge.export.build.tensorrt.configure import configure, keep_timing_cache
from storm_edge.export.build.tensorrt.layers import engine_layers, fused_attentions, plugins_found
from storm_edge.runtime.bundle.engine import FoundLayers
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.machine.memory import peak_memory_bytes
from storm_edge.runtime.machine.tensorrt_plugin import load_plugin

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
    """Compile and write the engine, and look what its layers are; raises CompileError."""
    try:
        trt: Any = importlib.import_module(job.package)
    except ImportError as e:
        raise CompileError("missing package", str(e)) from e
    logger = make_logger(trt)
    trt.init_libnvinfer_plugins(logger, "")
    result, plugins = _compiled(trt, logger, job)
    if not plugins and not result.layers.attentions:
        return result
    # The builder and its copy of the weights are gone by now, so there is room to load the engine.
    names = engine_layers(trt, logger, Path(job.engine))
    if names is None:
        return result
    found = {"plugins_found": plugins_found(plugins, names), "attentions_fused": fused_attentions(names)}
    return result.model_copy(update={"layers": result.layers.model_copy(update=found)})


def _compiled(trt: Any, logger: Any, job: CompileJob) -> tuple[CompileResult, list[str]]:
    """What compiling took, and the names of the network's plugin layers."""
    builder = trt.Builder(logger)
    for library in job.plugins:
        try:
            load_plugin(trt, job.package, Path(library))
        except EngineError as e:
            raise CompileError("plugin", str(e)) from e
    network = _parsed(trt, builder, logger, job)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    plugins = [layer.name for layer in layers if layer.type in _types(trt, "PLUGIN_V2", "PLUGIN_V3")]
    if job.plugins and not plugins:
        raise CompileError("plugin", "the parser expanded the operators though their plugin is loaded")
    # The Attention operator is never taken apart: a build that succeeds is a fused kernel.
    whole = any(layer.type in _types(trt, "ATTENTION_INPUT") for layer in layers)
    single = 0 if whole else sum(layer.type in _types(trt, "SOFTMAX") for layer in layers)
    try:
        config = configure(trt, builder, network, job)
    except ValueError as e:
        raise CompileError("build", str(e)) from e
    start = time.perf_counter()
    _build(trt, builder, network, config, logger, Path(job.engine))
    seconds = time.perf_counter() - start
    if job.timing_cache is not None:
        keep_timing_cache(config, Path(job.timing_cache))
    result = CompileResult(
        version=trt.__version__,
        seconds=seconds,
        engine_bytes=Path(job.engine).stat().st_size,
        peak_memory_bytes=peak_memory_bytes(),
        activation_bytes=logger.activation_bytes,
        layers=FoundLayers(plugins=len(plugins), attentions=single),
    )
    return result, plugins


def _parsed(trt: Any, builder: Any, logger: Any, job: CompileJob) -> Any:
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
    return network


def _build(trt: Any, builder: Any, network: Any, config: Any, logger: Any, path: Path) -> None:
    """Build the engine into a file.

    TensorRT from 10.13 on writes it in pieces; before, all of it lies in memory once more, beside the weights.
    """
    try:
        with path.open("wb") as file:
            if hasattr(builder, "build_serialized_network_to_stream"):
                writer = make_writer(trt, file)
                built = builder.build_serialized_network_to_stream(network, config, writer)
                if writer.failed is not None:
                    raise writer.failed
            else:
                plan = builder.build_serialized_network(network, config)
                built = plan is not None
                if built:
                    file.write(memoryview(plan))
    except OSError as e:
        raise CompileError("disk", str(e)) from e
    if not built:
        raise CompileError(classify(logger.errors, "build"), "; ".join(dict.fromkeys(logger.errors)))


def _types(trt: Any, *names: str) -> set[Any]:
    """Those kinds of layers that this version knows."""
    return {getattr(trt.LayerType, name) for name in names if hasattr(trt.LayerType, name)}


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

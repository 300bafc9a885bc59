"""Graphs on ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from storm_edge.plugins import libraries
from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.engine_graphs import engine_graph, engine_piece
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.config.sizes import VISION_BATCH, vision_batch
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.machine.packages import (
    CUDA_PROVIDER,
    FATAL,
    import_onnxruntime,
    import_onnxruntime_cuda,
)
from storm_edge.runtime.sessions.device import HOST, Device, HostArray, Tensor

FLOATS: dict[str, type[np.floating[Any]]] = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


def create_session(
    graph: Path,
    threads: int | None = None,
    *,
    literal: bool = False,
    cuda: Mapping[str, str] | None = None,
    content: bytes | None = None,
) -> Any:
    """An onnxruntime.InferenceSession for a graph file; `threads` None takes all cores. Raises EngineError.

    With `cuda`, options of ONNX Runtime's CUDA provider, it runs on the first GPU, all that CUDA has a kernel for.
    `literal` runs Q/DQ as the graph says it, instead of fusing it: that is what another engine's int8 and fp8 compute.
    `content` stands in for the file, with its weights.
    """
    ort = import_onnxruntime() if cuda is None else import_onnxruntime_cuda()
    options = ort.SessionOptions()
    options.log_severity_level = FATAL
    # It plans one block for all activations of a shape that was seen before, and takes that beside what it has.
    options.enable_mem_pattern = False
    # Processors without VNNI add pairs of 8-bit products in 16 bits, which overflow: the cosine of storm-mini's vision
    # tower falls from 0.9996 to 0.996. This makes them take another kernel; those with VNNI ignore it.
    options.add_session_config_entry("session.x64quantprecision", "1")
    if literal:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    if threads is not None:
        options.intra_op_num_threads = threads
    if content is not None:
        options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(graph.parent))
    register_operators(options)
    providers: list[Any] = ["CPUExecutionProvider"]
    if cuda is not None:
        providers.insert(0, (CUDA_PROVIDER, dict(cuda)))
        # Not in the arena, which would be as large again while they are read.
        options.add_session_config_entry("session.use_device_allocator_for_initializers", "1")
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    again = "build it again" if cuda is None else "build it again, or see what fits the GPU with `storm plan`"
    try:
        session = ort.InferenceSession(content or str(graph), options, providers=providers)
    except Exception as e:  # onnxruntime raises classes of its C extension without a common base
        reason = " ".join(str(e).split())
        raise EngineError(f"ONNX Runtime {ort.__version__} cannot load {graph} ({reason}): {again}.") from e
    if cuda is not None and CUDA_PROVIDER not in session.get_providers():  # it takes the processor instead, silently
        raise EngineError(
            f"ONNX Runtime {ort.__version__} cannot load CUDA's libraries or cuDNN for {graph}: pip install"
            " 'storm-edge[cuda]', and see `storm doctor` for the GPU and its driver."
        )
    return session


def register_operators(options: Any) -> Path | None:
    """Give a session the native operators, where their library is built; the library, or None. Raises EngineError.

    Without it the graphs' own functions run: the same results, slower.
    """
    library = libraries.find_library(libraries.ONNXRUNTIME)
    if library is not None:
        try:
            options.register_custom_ops_library(str(library))
        except Exception as e:
            raise EngineError(
                f"ONNX Runtime cannot load the operators in {library} ({' '.join(str(e).split())}): run"
                f" `{libraries.build_command()}` again, or set STORM_PLUGIN_PATH to nothing to run without them."
            ) from e
    return library


def open_session(
    bundle: Bundle, record: EngineRecord, stage: Stage, device: Device, threads: int | None
) -> OnnxRuntimeSession:
    """A stage of an engine on the CPU, whose `device` is the host; raises EngineError, BundleError."""
    batch = vision_batch(bundle.config, "cpu")
    return OnnxRuntimeSession(engine_graph(bundle, record, stage), threads, literal=record.simulated, batch=batch)


def open_piece(
    bundle: Bundle, record: EngineRecord, name: str, device: Device, threads: int | None
) -> OnnxRuntimeSession:
    """A piece of an engine's temporal encoder, likewise."""
    return OnnxRuntimeSession(engine_piece(bundle, record, name), threads, literal=record.simulated)


class OnnxRuntimeSession:
    """A Session on ONNX Runtime's CPU provider."""

    device = HOST

    def __init__(
        self, graph: Path, threads: int | None = None, *, literal: bool = False, batch: int = VISION_BATCH
    ) -> None:
        self.batch = batch
        self._session = create_session(graph, threads, literal=literal)
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._types = {i.name: FLOATS[i.type] for i in self._session.get_inputs() if i.type in FLOATS}
        self._graph = graph

    def run(self, **inputs: Tensor) -> dict[str, HostArray]:
        """Run once on host tensors, which become what the graph takes; raises EngineError."""
        given = {name: np.asarray(HOST.put(x), self._types.get(name)) for name, x in inputs.items()}
        try:
            values = self._session.run(self._outputs, given)
        except Exception as e:
            raise EngineError(f"{self._graph} failed to run ({' '.join(str(e).split())}).") from e
        return dict(zip(self._outputs, values, strict=True))

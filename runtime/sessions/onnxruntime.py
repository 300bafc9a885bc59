"""Graphs on ONNX Runtime."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.sessions.base import Array, SupportsDLPack, host_array


def import_onnxruntime() -> Any:
    """The onnxruntime module; raises EngineError that names the extra to install."""
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as e:
        raise EngineError("ONNX Runtime is not installed: pip install 'storm-edge[cpu]'.") from e


def create_session(graph: Path, threads: int | None = None) -> Any:
    """An onnxruntime.InferenceSession for a graph file; `threads` None takes all cores. Raises EngineError."""
    ort = import_onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 3
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return ort.InferenceSession(str(graph), options, providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime raises classes of its C extension without a common base
        reason = " ".join(str(e).split())
        raise EngineError(f"ONNX Runtime {ort.__version__} cannot load {graph} ({reason}): build it again.") from e


class OnnxRuntimeSession:
    """A Session on ONNX Runtime's CPU provider."""

    def __init__(self, graph: Path, threads: int | None = None):
        self._session = create_session(graph, threads)
        self._outputs = [output.name for output in self._session.get_outputs()]
        self._graph = graph

    def run(self, **inputs: SupportsDLPack) -> dict[str, Array]:
        """Run once on host tensors; raises EngineError."""
        try:
            values = self._session.run(self._outputs, {name: host_array(x) for name, x in inputs.items()})
        except Exception as e:
            raise EngineError(f"{self._graph} failed to run ({' '.join(str(e).split())}).") from e
        return dict(zip(self._outputs, values, strict=True))

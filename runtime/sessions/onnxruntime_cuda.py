"""Graphs on ONNX Runtime's CUDA provider, in a pipeline's stream. No machine of ours has run it yet.

Written from the documentation; onnxruntime-gpu 1.31.1 was seen to load the graphs, with every node in CUDA.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from storm_edge.plugins.libraries import build_command
from storm_edge.plugins.selective_scan import op as selective_scan
from storm_edge.runtime.bundle.contract import TensorSpec, contract, piece_contract
from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.engine_graphs import engine_graph, engine_piece
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.config.sizes import VISION_BATCH
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.machine.packages import CUDA_PROVIDER, import_onnxruntime_cuda
from storm_edge.runtime.sessions.cuda import MORE_MEMORY, CudaDevice, from_bfloat16_bits
from storm_edge.runtime.sessions.device import Tensor
from storm_edge.runtime.sessions.onnxruntime import create_session

OLDEST = "1.31"  # whose list of kernels the encoders are held to, opset 24's attention among them
# ONNX Runtime's names of types -> those of `CudaDevice.cast`, and ONNX's number, since numpy has no bfloat16.
_TYPES = {
    "tensor(float)": ("float32", 1),
    "tensor(float16)": ("float16", 10),
    "tensor(bfloat16)": ("bfloat16", 16),
    "tensor(uint8)": ("uint8", 2),
    "tensor(int64)": ("int64", 7),
}


def open_session(
    bundle: Bundle, record: EngineRecord, stage: Stage, device: CudaDevice, threads: int | None
) -> OnnxRuntimeCudaSession:
    """A stage of an engine; raises EngineError, BundleError."""
    import_onnxruntime_cuda(OLDEST)
    graph = CudaGraph(engine_graph(bundle, record, stage), device, threads)
    return OnnxRuntimeCudaSession(graph, bundle.config, *contract(bundle.config, bundle.manifest.dtype, stage))


def open_piece(
    bundle: Bundle, record: EngineRecord, name: str, device: CudaDevice, threads: int | None
) -> OnnxRuntimeCudaSession:
    """A piece of an engine's temporal encoder, likewise."""
    import_onnxruntime_cuda(OLDEST)
    graph = CudaGraph(engine_piece(bundle, record, name), device, threads)
    return OnnxRuntimeCudaSession(graph, bundle.config, *piece_contract(bundle.config, bundle.manifest.dtype, name))


class CudaGraph:
    """A graph file loaded into the first GPU, whose runs go into a device's stream."""

    def __init__(self, path: Path, device: CudaDevice, threads: int | None = None) -> None:
        """Raises EngineError where it cannot be loaded, or would run operators of this project on the processor."""
        self.path, self.device = path, device
        with device:
            self.session = create_session(path, threads, cuda=provider_options(device))
        _require_operators(self.session, path)
        values = (*self.session.get_inputs(), *self.session.get_outputs())
        self._types = {value.name: _TYPES[value.type] for value in values}
        self._unwaited = import_onnxruntime_cuda().RunOptions()
        # The host waits for the stream where it reads, not after every run.
        self._unwaited.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def dtype(self, name: str) -> str:
        """The type of an input or output, as `CudaDevice.cast` calls it."""
        return self._types[name][0]

    def bind_input(self, binding: Any, name: str, array: Any) -> None:
        """Let an input be read from an array on the GPU, which must live until it was put into the stream."""
        binding.bind_input(name, "cuda", 0, self._types[name][1], array.shape, self.device.pointer(array))

    def bind_output(self, binding: Any, name: str, array: Any) -> None:
        """Let an output be written into an array on the GPU."""
        binding.bind_output(name, "cuda", 0, self._types[name][1], array.shape, self.device.pointer(array))

    def run(self, binding: Any) -> None:
        """Put a run into the stream; raises EngineError."""
        with self.device:
            try:
                self.session.run_with_iobinding(binding, self._unwaited)
            except Exception as e:  # onnxruntime raises classes of its C extension without a common base
                reason = " ".join(str(e).split())
                raise EngineError(f"{self.path} failed to run ({reason}): {MORE_MEMORY}, or build it again.") from e


class OnnxRuntimeCudaSession:
    """A Session on the first GPU. Inputs are read where they are, outputs are new arrays."""

    batch = VISION_BATCH

    def __init__(
        self, graph: CudaGraph, config: StormConfig, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
    ) -> None:
        self._graph, self._config, self._inputs, self._outputs = graph, config, inputs, outputs
        self.device = graph.device

    def run(self, **inputs: Tensor) -> dict[str, Any]:
        """Put a run into the device's stream; bfloat16 outputs, which nothing else reads, become fp32."""
        graph, device = self._graph, self.device
        binding = graph.session.io_binding()
        with device:
            given = {name: device.cast(tensor, graph.dtype(name)) for name, tensor in inputs.items()}
            axes = self._axes(given)
            results = {
                spec.name: device.empty(
                    [n if isinstance(n, int) else axes[n] for n in spec.shape], graph.dtype(spec.name)
                )
                for spec in self._outputs
            }
            for name, array in given.items():
                graph.bind_input(binding, name, array)
            for name, array in results.items():
                graph.bind_output(binding, name, array)
            graph.run(binding)
            wide = {name: from_bfloat16_bits(x) for name, x in results.items() if graph.dtype(name) == "bfloat16"}
            return results | wide

    def _axes(self, given: Mapping[str, Any]) -> dict[str, int]:
        """The sizes of the named axes, those of outputs included."""
        config = self._config
        axes = {
            axis: size
            for spec in self._inputs
            for axis, size in zip(spec.shape, given[spec.name].shape, strict=True)
            if isinstance(axis, str)
        }
        frames = axes.get("frames", axes.get("tokens", 0) // config.tokens_per_frame)
        return axes | {"pooled_frames": frames // config.reduction.temporal_pool}


def provider_options(device: CudaDevice) -> dict[str, str]:
    """ONNX Runtime's CUDA provider in a device's stream, taking no more memory than is asked for."""
    return {
        "device_id": "0",
        "user_compute_stream": str(device.stream),
        "arena_extend_strategy": "kSameAsRequested",
        # Convolutions are few, and a search would be repeated for every new number of frames.
        "cudnn_conv_algo_search": "HEURISTIC",
    }


def _require_operators(session: Any, path: Path) -> None:
    """Raise EngineError where the scan runs on the processor, or as a loop over tokens."""
    if not hasattr(session, "get_provider_graph_assignment_info"):  # releases for a Jetson, which run decoders alone
        return
    placed = [
        (part.ep_name, node) for part in session.get_provider_graph_assignment_info() for node in part.get_nodes()
    ]
    wrong = [n for place, n in placed if n.domain == selective_scan.DOMAIN and place != CUDA_PROVIDER]
    if wrong or any(node.op_type == "Scan" for _, node in placed):
        raise EngineError(
            f"the operators of {path} have no CUDA form here, so that every token would be a step of its own: run"
            f" `{build_command()}` where nvcc is, then try again."
        )

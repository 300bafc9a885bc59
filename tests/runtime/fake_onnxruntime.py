"""ONNX Runtime with CUDA for tests, on the GPU of fake_cupy: the names of its Python package that the product uses.

A session computes with the ONNX Runtime that is here, on its CPU, when the stream that it was given gets there, from
and to the addresses that were bound when it was put there. What is bound on the host is read at once, as its nodes on
the processor do. Unless a run is told not to, it waits for the stream.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as real
from fake_cupy import Gpu

CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"
UNWAITED = "disable_synchronize_execution_providers"


@dataclass
class Process:
    """What a process has of it. `loads`: CUDA's libraries are found; `operators_on`: the provider of this project's
    operators; `expanded`: they are not built, so that sessions see their function's Scan.
    """

    gpu: Gpu
    version: str = "1.31.1"
    providers: tuple[str, ...] = (CUDA, CPU)
    loads: bool = True
    operators_on: str = CUDA
    expanded: bool = False
    fails: str = ""  # what the next run ends with
    sessions: list[Session] = field(default_factory=list)
    preloaded: int = 0


class Binding:
    """IOBinding."""

    def __init__(self) -> None:
        self.inputs: dict[str, tuple[int, tuple[int, ...], int]] = {}
        self.outputs: dict[str, tuple[int, tuple[int, ...], int]] = {}
        self.on_host: dict[str, np.ndarray] = {}

    def bind_input(self, name: str, device: str, index: int, kind: int, shape: Any, address: int) -> None:
        assert (device, index) == ("cuda", 0)
        self.inputs[name] = kind, tuple(shape), address

    def bind_output(self, name: str, device: str, index: int, kind: int, shape: Any, address: int) -> None:
        assert (device, index) == ("cuda", 0)
        self.outputs[name] = kind, tuple(shape), address

    def bind_cpu_input(self, name: str, array: np.ndarray) -> None:
        self.on_host[name] = array


class Session:
    """InferenceSession on CUDA."""

    def __init__(self, process: Process, model: Any, options: Any, settings: dict[str, str]) -> None:
        self.process, self.settings = process, settings
        self.session = real.InferenceSession(model, options, providers=[CPU])
        self.runs = 0
        self.bindings: list[Binding] = []
        process.sessions.append(self)

    def get_providers(self) -> list[str]:
        return [CUDA, CPU] if self.process.loads else [CPU]

    def get_inputs(self) -> Any:
        return self.session.get_inputs()

    def get_outputs(self) -> Any:
        return self.session.get_outputs()

    def get_provider_graph_assignment_info(self) -> list[Any]:
        nodes = [n for part in self.session.get_provider_graph_assignment_info() for n in part.get_nodes()]
        parts = [(self.process.operators_on if n.domain == "storm" else CUDA, n) for n in nodes]
        if self.process.expanded:
            kept = [(ep, n) for ep, n in parts if n.domain != "storm"]
            looped = len(kept) < len(parts)
            parts = kept + [(CUDA, SimpleNamespace(domain="", op_type="Scan"))] * looped
        return [SimpleNamespace(ep_name=ep, get_nodes=lambda n=n: [n]) for ep, n in parts]

    def io_binding(self) -> Binding:
        self.bindings.append(Binding())
        return self.bindings[-1]

    def run_with_iobinding(self, binding: Binding, options: Any) -> None:
        process = self.process
        if process.fails:
            reason, process.fails = process.fails, ""
            raise RuntimeError(reason)
        stream = process.gpu.stream(int(self.settings["user_compute_stream"]))
        missing = {x.name for x in self.get_inputs()} - {*binding.inputs, *binding.on_host}
        assert not missing, f"{missing} are not bound"
        self.runs += 1
        host = {name: array.copy() for name, array in binding.on_host.items()}
        inputs, outputs = dict(binding.inputs), dict(binding.outputs)

        def work() -> None:
            bound = self.session.io_binding()
            for name, array in host.items():
                bound.bind_cpu_input(name, array)
            for name, (kind, shape, address) in inputs.items():
                bound.bind_input(name, "cpu", 0, kind, shape, address)
            for name, (kind, shape, address) in outputs.items():
                bound.bind_output(name, "cpu", 0, kind, shape, address)
            self.session.run_with_iobinding(bound)

        stream.add(work)
        if options.get_run_config_entry(UNWAITED) != "1":
            stream.synchronize()


def onnxruntime_of(process: Process) -> ModuleType:
    """The module `onnxruntime` in a process."""

    def open_session(model: Any, options: Any = None, providers: Any = (), **_: Any) -> Any:
        settings = next((p[1] for p in providers if p[0] == CUDA), None)
        if settings is None:
            return real.InferenceSession(model, options, providers=list(providers))
        return Session(process, model, options, settings)

    def preload() -> None:
        process.preloaded += 1
        print("Failed to load libcudnn.so.9")  # to standard output, as it does

    module = ModuleType("onnxruntime")
    module.__dict__.update({k: v for k, v in real.__dict__.items() if not k.startswith("__")})
    module.__dict__.update(
        InferenceSession=open_session,
        get_available_providers=lambda: list(process.providers),
        preload_dlls=preload,
        __version__=process.version,
    )
    return module

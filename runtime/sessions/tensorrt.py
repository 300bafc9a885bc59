"""Graphs on TensorRT and TensorRT for RTX. Written from the documentation; no machine of ours has run it yet."""

from __future__ import annotations

from typing import Any

from storm_edge.plugins.libraries import TENSORRT, build_command, find_library
from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle, Stage, file_sha256
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.runners import RUNNERS
from storm_edge.runtime.sessions.cuda import CudaDevice, from_bfloat16_bits
from storm_edge.runtime.sessions.device import Tensor
from storm_edge.runtime.sessions.tensorrt_engine import TensorRTEngine


def open_session(
    bundle: Bundle, record: EngineRecord, stage: Stage, device: CudaDevice, threads: int | None
) -> TensorRTSession:
    """A stage of an engine; raises EngineError where it was compiled for another GPU, or with another plugin."""
    return TensorRTSession(open_engine(bundle, record, stage, device))


def open_engine(bundle: Bundle, record: EngineRecord, stage: Stage, device: CudaDevice) -> TensorRTEngine:
    """The engine file of a stage, on the GPU; raises EngineError as above."""
    gpu = next(iter(probe().gpus), None)
    if gpu and gpu.sm and record.sms and gpu.sm not in record.sms:
        compiled = ", ".join(map(str, record.sms))
        raise EngineError(
            f"engine {record.name} was compiled for SM {compiled}, this machine has {gpu.name} (SM {gpu.sm}): build it"
            " again here."
        )
    plugin = find_library(TENSORRT)
    if record.plugin_sha256 and (plugin is None or file_sha256(plugin) != record.plugin_sha256):
        here = f"this machine has another one, {plugin}" if plugin else f"this machine has none (`{build_command()}`)"
        raise EngineError(
            f"engine {record.name} was built with plugin {record.plugin_sha256[:12]}, {here}: build it again here."
        )
    plugins = [plugin] if plugin and record.plugin_sha256 else []
    package = RUNNERS[record.runners[stage]].package
    path = bundle.located(record.graphs[stage])
    return TensorRTEngine(path, package, record.versions["tensorrt"], device, plugins)


class TensorRTSession:
    """A Session on the first GPU. Inputs are read where they are, outputs are new arrays."""

    def __init__(self, engine: TensorRTEngine):
        """Raises EngineError where memory is short."""
        self._engine, self.device = engine, engine.device
        self._context = engine.context()
        self.batch = engine.sizes(engine.inputs[0])[1][0]  # what the profile is tuned for

    def run(self, **inputs: Tensor) -> dict[str, Any]:
        """Put a run into the device's stream; bfloat16 outputs, which nothing else reads, become fp32."""
        engine, context = self._engine, self._context
        with self.device:
            for name, tensor in inputs.items():
                context.bind(name, self.device.cast(tensor, engine.dtype(name)))
            results = {name: self.device.empty(context.shape(name), engine.dtype(name)) for name in engine.outputs}
            for name, array in results.items():
                context.bind(name, array)
            context.run()
            wide = {name: from_bfloat16_bits(x) for name, x in results.items() if engine.dtype(name) == "bfloat16"}
            return results | wide

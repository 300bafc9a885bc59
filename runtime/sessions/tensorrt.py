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


def open_piece(
    bundle: Bundle, record: EngineRecord, name: str, device: CudaDevice, threads: int | None
) -> TensorRTSession:
    """A piece of an engine's temporal encoder, likewise; what only other pieces read stays in the engine's type."""
    engine = open_engine(bundle, record, "temporal", device, record.pieces[name])
    return TensorRTSession(engine, widened=name == "pool")


def open_engine(
    bundle: Bundle, record: EngineRecord, stage: Stage, device: CudaDevice, file: str | None = None
) -> TensorRTEngine:
    """The engine file of a stage, or another of its files, on the GPU; raises EngineError as above."""
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
    path = bundle.located(file or record.graphs[stage])
    return TensorRTEngine(path, package, record.versions["tensorrt"], device, plugins)


class TensorRTSession:
    """A Session on the first GPU. Inputs are read where they are, outputs are new arrays, and bfloat16 ones become fp32
    where they are `widened` for those who cannot read them.
    """

    def __init__(self, engine: TensorRTEngine, *, widened: bool = True):
        """Raises EngineError where memory is short."""
        self._widened = widened
        self._engine, self.device = engine, engine.device
        self._context = engine.context()
        self.batch = engine.sizes(engine.inputs[0])[1][0]  # what the profile is tuned for

    def run(self, **inputs: Tensor) -> dict[str, Any]:
        """Put a run into the device's stream."""
        engine, context = self._engine, self._context
        with self.device:
            # Held until the run is in the stream: else an output could take the place of a copy that was made here.
            given = {name: self.device.cast(tensor, engine.dtype(name)) for name, tensor in inputs.items()}
            for name, array in given.items():
                context.bind(name, array)
            results = {name: self.device.empty(context.shape(name), engine.dtype(name)) for name in engine.outputs}
            for name, array in results.items():
                context.bind(name, array)
            context.run()
            bits = [name for name in results if self._widened and engine.dtype(name) == "bfloat16"]
            return results | {name: from_bfloat16_bits(results[name]) for name in bits}

"""Engines on TensorRT and TensorRT for RTX. Written from the documentation; no machine of ours has run it yet.

Device memory and DLPack are CuPy's. Input and output buffers are allocated once, for the largest shapes of the engine's
profile; outputs are copied on the device, so that the next run cannot change what the last one returned.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storm_edge.plugins.libraries import TENSORRT, build_command, find_library
from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle, Stage, file_sha256
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.machine.packages import import_tensorrt
from storm_edge.runtime.machine.probe import probe
from storm_edge.runtime.runners import RUNNERS
from storm_edge.runtime.sessions.base import Array, SupportsDLPack

# TensorRT's names of types -> those of device arrays; CuPy has no bfloat16, its bits are kept as uint16.
_TYPES = {"FLOAT": "float32", "HALF": "float16", "BF16": "uint16", "INT64": "int64", "INT32": "int32", "UINT8": "uint8"}


def open_session(bundle: Bundle, record: EngineRecord, stage: Stage, threads: int | None) -> TensorRTSession:
    """A stage of an engine; raises EngineError where it was compiled for another GPU, or with another plugin."""
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
    return TensorRTSession(bundle.located(record.graphs[stage]), package, record.versions["tensorrt"], plugins)


class TensorRTSession:
    """A Session on the first GPU. `made_with` is the engine's TensorRT version, for the message when it differs."""

    def __init__(self, engine: Path, api: str, made_with: str, plugins: Sequence[Path] = ()):
        trt, self._cupy = import_tensorrt(api)
        self._trt, self._path = trt, engine
        if trt.__version__ != made_with:
            raise EngineError(
                f"{engine} was built with TensorRT {made_with}, this machine has {trt.__version__}:"
                " build it again here with `storm build`."
            )
        logger = trt.Logger(trt.Logger.ERROR)
        for library in plugins:
            ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
            trt.get_plugin_registry().load_library(str(library))
        self._engine = trt.Runtime(logger).deserialize_cuda_engine(engine.read_bytes())
        if self._engine is None:
            raise EngineError(
                f"TensorRT {trt.__version__} cannot load {engine}: it was built for another GPU, platform or plugin;"
                " build it again here with `storm build`."
            )
        self._context = self._engine.create_execution_context()
        self._stream = self._cupy.cuda.Stream(non_blocking=True)
        names = [self._engine.get_tensor_name(i) for i in range(self._engine.num_io_tensors)]
        is_input = {n: self._engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT for n in names}
        self.inputs = [n for n in names if is_input[n]]
        self.outputs = [n for n in names if not is_input[n]]
        self._buffers: dict[str, Any] = {}
        for name in self.inputs:
            self._context.set_input_shape(name, self.largest(name))
            self._buffers[name] = self._allocate(name, self.largest(name))
        for name in self.outputs:
            self._buffers[name] = self._allocate(name, tuple(self._context.get_tensor_shape(name)))

    def dtype(self, name: str) -> str:
        """The device array type of an input or output; bfloat16 is "uint16"."""
        return _TYPES[self._engine.get_tensor_dtype(name).name]

    def is_bfloat16(self, name: str) -> bool:
        """Whether a tensor is bfloat16."""
        return bool(self._engine.get_tensor_dtype(name).name == "BF16")

    def largest(self, name: str) -> tuple[int, ...]:
        """The largest shape of an input that the engine was built for."""
        return tuple(self._engine.get_tensor_profile_shape(name, 0)[2])

    def share(self, source: str, result: str) -> None:
        """Let an output use an input's buffer, which a graph then updates in place and `run` leaves out; zeroed."""
        self._buffers[source][...] = 0  # masked positions are multiplied by zero, which NaN of unset memory survives
        self._buffers[result] = self._buffers[source]
        self.outputs.remove(result)

    def run(self, **inputs: SupportsDLPack) -> dict[str, Array]:
        """Run once; inputs in host or device memory, outputs are device arrays. Raises EngineError."""
        with self._stream:
            for name, tensor in inputs.items():
                self._put(name, tensor)
            for name, buffer in self._buffers.items():
                self._context.set_tensor_address(name, buffer.data.ptr)
            if not self._context.execute_async_v3(self._stream.ptr):
                raise EngineError(f"{self._path} failed to run: see TensorRT's message above.")
            results = {name: self._result(name) for name in self.outputs}
            self._stream.synchronize()
        return results

    def _put(self, name: str, tensor: SupportsDLPack) -> None:
        array = self._cupy.asarray(tensor) if hasattr(tensor, "__array__") else self._cupy.from_dlpack(tensor)
        array = to_bfloat16_bits(array) if self.is_bfloat16(name) else array.astype(self.dtype(name), copy=False)
        if not self._context.set_input_shape(name, array.shape):
            smallest, _, largest = (list(s) for s in self._engine.get_tensor_profile_shape(name, 0))
            raise EngineError(
                f"{self._path} takes {name} from {smallest} to {largest}, not {list(array.shape)}: take fewer frames,"
                " or build it again with a larger --max-frames."
            )
        self._view(name, array.shape)[...] = array

    def _result(self, name: str) -> Any:
        """A copy of an output; nothing but an engine reads bfloat16, so that becomes fp32."""
        view = self._view(name, self._context.get_tensor_shape(name))
        return from_bfloat16_bits(view) if self.is_bfloat16(name) else view.copy()

    def to_device(self, array: Any) -> Any:
        """A host array on the session's device."""
        return self._cupy.asarray(array)

    def _view(self, name: str, shape: Sequence[int]) -> Any:
        return self._buffers[name].reshape(-1)[: math.prod(shape)].reshape(tuple(shape))

    def _allocate(self, name: str, shape: Sequence[int]) -> Any:
        return self._cupy.empty(tuple(shape), self.dtype(name))


def to_bfloat16_bits(array: Any) -> Any:
    """fp32 device or host array -> the upper halves of its bits, rounded to nearest even; uint16 passes through."""
    if array.dtype == "uint16":
        return array
    bits = array.astype("float32").view("uint32")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("uint16")


def from_bfloat16_bits(array: Any) -> Any:
    """The inverse: uint16 bits -> fp32."""
    return (array.astype("uint32") << 16).view("float32")

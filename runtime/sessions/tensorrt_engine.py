"""An engine file of TensorRT or TensorRT for RTX on the GPU, and contexts that run it.

Written from the documentation and headers of 10.3 to 11.1; no machine of ours has run it yet.
"""

from __future__ import annotations

import logging
import mmap
import threading
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.machine.packages import import_tensorrt
from storm_edge.runtime.machine.tensorrt_plugin import load_plugin
from storm_edge.runtime.sessions.cuda import MORE_MEMORY, CudaDevice
from storm_edge.runtime.sessions.kernel_cache import context_config

# TensorRT's names of types -> those of `CudaDevice.cast`.
_TYPES = {
    "FLOAT": "float32",
    "HALF": "float16",
    "BF16": "bfloat16",
    "INT64": "int64",
    "INT32": "int32",
    "UINT8": "uint8",
}
_log = logging.getLogger(__name__)
_loading = threading.Lock()


class TensorRTEngine:
    """`made_with` is the engine's TensorRT version; raises EngineError where this machine cannot load it."""

    def __init__(self, path: Path, package: str, made_with: str, device: CudaDevice, plugins: Sequence[Path] = ()):
        trt = import_tensorrt(package)
        self._trt, self.path, self.device = trt, path, device
        if trt.__version__ != made_with:
            raise EngineError(
                f"{path} was built with TensorRT {made_with}, this machine has {trt.__version__}:"
                " build it again here with `storm build`."
            )
        with _loading, device:
            for library in plugins:
                load_plugin(trt, package, library)
            self._runtime, self._errors = _runtime(package)
            self._errors.clear()
            # Mapped, not read: TensorRT copies the weights to the GPU, and the pages can be dropped as it goes.
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
                self._engine = self._runtime.deserialize_cuda_engine(plan)
            if self._engine is None:
                raise EngineError(
                    f"TensorRT {trt.__version__} cannot load {path} ({self.reason()}): build it again here with"
                    f" `storm build`, or, where memory is short, {MORE_MEMORY}."
                )
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        self.inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        self.outputs = [n for n in names if n not in self.inputs]
        self.profiles: int = engine.num_optimization_profiles
        # Each context's own memory would hold its largest activations for as long as it lives.
        self._context_config = context_config(trt, engine, path, self)

    def dtype(self, name: str) -> str:
        """The type of an input or output, as `CudaDevice.cast` calls it."""
        return _TYPES[self._engine.get_tensor_dtype(name).name]

    def sizes(self, name: str, profile: int = 0) -> tuple[tuple[int, ...], ...]:
        """The smallest shape of an input, the one it is tuned for, and the largest, in an optimization profile."""
        fixed = tuple(self._engine.get_tensor_shape(name))
        if -1 not in fixed:
            return fixed, fixed, fixed
        return tuple(tuple(shape) for shape in self._engine.get_tensor_profile_shape(name, profile))

    def context(self, profile: int = 0, *, settled: bool = False) -> EngineContext:
        """Something that runs the engine with the shapes of a profile; raises EngineError where memory is short.

        `settled`: TensorRT for RTX, which compiles kernels when they are first used, does so before a run goes on, and
        not beside it. What is captured as a CUDA graph would keep its stopgaps.
        """
        return EngineContext(self, self._make_context(settled), self._engine, profile)

    def _make_context(self, settled: bool) -> Any:
        config = self._context_config
        # TensorRT for RTX alone: there the configuration is an object, elsewhere only how memory is allocated.
        specialization = getattr(self._trt, "DynamicShapesKernelSpecializationStrategy", None)
        with self.device:
            if specialization is not None:
                strategy = specialization.EAGER if settled else specialization.LAZY
                config.dynamic_shapes_kernel_specialization_strategy = strategy
            context = self._engine.create_execution_context(config)
        if context is None:
            raise EngineError(f"TensorRT cannot make a context for {self.path} ({self.reason()}): {MORE_MEMORY}.")
        return context

    def reason(self) -> str:
        """What TensorRT said last of what went wrong, on one line."""
        return " ".join("; ".join(self._errors[-2:]).split()) or "it does not say why"


class EngineContext:
    """Runs an engine. Memory for activations is the device's scratch block, which engines that run in turn share."""

    def __init__(self, engine: TensorRTEngine, context: Any, handle: Any, profile: int):
        self._engine, self._context, self._handle, self._profile = engine, context, handle, profile
        self._device = engine.device
        self._size, self._memory = 0, 0  # bytes that the shapes need, and the block that the context was given
        self._graph: Any = None
        self._capturable = True
        with self._device:
            if profile and not self._context.set_optimization_profile_async(profile, self._device.stream):
                raise EngineError(f"{engine.path} has no optimization profile {profile}: build it again.")

    def bind(self, name: str, array: Any) -> None:
        """Let an input or output be in an array, which must live until it has been run; inputs set their shape."""
        if name in self._engine.inputs:
            self.resize(name, array.shape)
        self._context.set_tensor_address(name, self._device.pointer(array))

    def resize(self, name: str, shape: Sequence[int]) -> None:
        """Set the shape of an input; raises EngineError where the profile has no such shape."""
        if tuple(self._context.get_tensor_shape(name)) == tuple(shape):
            return
        self._size, self._graph = 0, None
        if not self._context.set_input_shape(name, tuple(shape)):
            smallest, _, largest = (list(s) for s in self._engine.sizes(name, self._profile))
            raise EngineError(
                f"{self._engine.path} takes {name} from {smallest} to {largest}, not {list(shape)}: take fewer frames,"
                " or build it again with a larger --max-frames."
            )

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of an output for the shapes of the inputs."""
        return tuple(self._context.get_tensor_shape(name))

    def run(self) -> None:
        """Put one run into the device's stream; raises EngineError."""
        with self._device:
            self._give_memory()
            self._enqueue()

    def run_captured(self) -> None:
        """The same with arrays that stay where they are: from the second time on as one CUDA graph."""
        with self._device:
            if self._give_memory():
                self._graph = None
            if self._graph is not None:
                self._graph.launch()
                return
            self._enqueue()  # TensorRT does what it has put off before it can be captured
            if self._capturable:
                self._graph = self._capture()
                self._capturable = self._graph is not None
                if not self._capturable:
                    _log.warning("%s cannot be captured as a CUDA graph: it runs without one", self._engine.path)

    def _capture(self) -> Any:
        """One run as a CUDA graph; None where TensorRT or CUDA cannot."""
        context, stream = self._context, self._device.stream
        # TensorRT for RTX can be asked; TensorRT is tried.
        if hasattr(context, "is_stream_capturable") and not context.is_stream_capturable(stream):
            return None
        return self._device.capture(lambda: bool(context.execute_async_v3(stream)))

    def _enqueue(self) -> None:
        if not self._context.execute_async_v3(self._device.stream):
            raise EngineError(
                f"{self._engine.path} failed to run ({self._engine.reason()}): {MORE_MEMORY}, or build it again."
            )

    def _give_memory(self) -> bool:
        """Give the context memory for the shapes it has; whether that is another block than before."""
        if not self._size:
            # 0 is TensorRT's word for a failure as well: then what any shape of the profile can need.
            self._size = self._context.update_device_memory_size_for_shapes()
            self._size = self._size or self._handle.get_device_memory_size_for_profile_v2(self._profile)
            self._memory = 0
        block = self._device.scratch(self._size)
        if block == self._memory:
            return False
        self._memory = block
        self._context.set_device_memory(block, self._size)
        return True


@cache
def _runtime(package: str) -> tuple[Any, list[str]]:
    """The process's TensorRT runtime and the errors it reports: TensorRT keeps the first logger that it is given."""
    trt = import_tensorrt(package)
    errors: list[str] = []
    return trt.Runtime(_make_logger(trt, errors)), errors


def _make_logger(trt: Any, errors: list[str]) -> Any:
    class Log(trt.ILogger):  # type: ignore[misc]  # a class of whichever package was asked for
        """Keeps errors for our own messages."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            """Called by TensorRT."""
            if severity <= trt.ILogger.ERROR:
                errors.append(message)

    return Log()

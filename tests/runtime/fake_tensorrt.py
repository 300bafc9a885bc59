"""TensorRT for tests, on the GPU of fake_cupy: the names and rules of its Python package that the product uses.

An engine file is JSON that names an ONNX graph, which ONNX Runtime computes when the stream gets there, from and to
the addresses that were bound when it was put there. What TensorRT refuses, this refuses: shapes outside the profile,
too little memory for activations, capturing what it has put off, loading a plugin library twice.
"""

from __future__ import annotations

import ctypes
import json
import math
from enum import Enum, IntEnum
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
from fake_cupy import Gpu, OutOfMemoryError

from storm_edge.runtime.sessions.onnxruntime import create_session

VERSION = "10.16.1"
BYTES_PER_ELEMENT = 4  # of activations, for every number in the inputs that grow
_TYPES = {"tensor(float)": "FLOAT", "tensor(float16)": "HALF", "tensor(int64)": "INT64", "tensor(uint8)": "UINT8"}
_NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "UINT8": np.uint8}


class Mode(Enum):
    """TensorIOMode."""

    INPUT = 1
    OUTPUT = 2


class Strategy(IntEnum):
    """ExecutionContextAllocationStrategy."""

    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


def write_engine(
    path: Path, graph: Path, profiles: list[dict[str, list[list[int]]]], fixed: dict[str, list[int]] | None = None
) -> None:
    """An engine of a graph: min, opt and max of its inputs by profile; `fixed` are shapes of others and of outputs."""
    path.write_text(json.dumps({"graph": str(graph), "profiles": profiles, "fixed": fixed or {}}))


class Process:
    """What a process has of TensorRT; `contexts` is how many more there is room for, `read` the buffers engines came
    in.
    """

    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.libraries, self.read = gpu, list[str](), list[type]()
        self.contexts = 100
        self.made: list[Context] = []
        self.capturable = True
        self.registry = SimpleNamespace(load_library=self._load_library)
        self.loggers: list[Any] = []
        self.specialized: list[str] = []

    def _load_library(self, path: str) -> object:
        if path in self.libraries:
            return None
        self.libraries.append(path)
        return object()


class RuntimeConfig:
    """IRuntimeConfig, of TensorRT for RTX."""

    strategy = Strategy.STATIC
    dynamic_shapes_kernel_specialization_strategy = "lazy"

    def set_execution_context_allocation_strategy(self, strategy: Strategy) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> None:
        """There is none here: test_kernel_cache has one."""


class Engine:
    """ICudaEngine."""

    def __init__(self, process: Process, made_of: dict[str, Any]) -> None:
        self.process, self.made_of = process, made_of
        self.session = create_session(Path(made_of["graph"]), 1)
        self.inputs = {value.name: value for value in self.session.get_inputs()}
        self.outputs = {value.name: value for value in self.session.get_outputs()}
        self.names = [*self.inputs, *self.outputs]
        self.num_io_tensors = len(self.names)
        self.num_optimization_profiles = len(made_of["profiles"])

    def get_tensor_name(self, index: int) -> str:
        return self.names[index]

    def get_tensor_mode(self, name: str) -> Mode:
        return Mode.INPUT if name in self.inputs else Mode.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=_TYPES[(self.inputs | self.outputs)[name].type])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        if name in self.made_of["fixed"]:
            return tuple(self.made_of["fixed"][name])
        return tuple(n if isinstance(n, int) else -1 for n in (self.inputs | self.outputs)[name].shape)

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        fixed = self.get_tensor_shape(name)
        return [tuple(s) for s in self.made_of["profiles"][profile].get(name, [fixed, fixed, fixed])]

    def get_device_memory_size_for_profile_v2(self, profile: int) -> int:
        return activations({name: sizes[2] for name, sizes in self.made_of["profiles"][profile].items()})

    def create_runtime_config(self) -> RuntimeConfig:
        return RuntimeConfig()

    def create_execution_context(self, strategy: Strategy | RuntimeConfig = Strategy.STATIC) -> Context | None:
        process = self.process
        if isinstance(strategy, RuntimeConfig):
            process.specialized.append(strategy.dynamic_shapes_kernel_specialization_strategy)
            strategy = strategy.strategy
        if process.contexts == 0:
            for logger in process.loggers:
                logger.log(1, "[runner.cpp] Error Code 2: OutOfMemory (Requested size was 1 bytes.)")
            return None
        process.contexts -= 1
        if strategy == Strategy.STATIC:
            profiles = range(self.num_optimization_profiles)
            try:
                process.gpu.take(max(self.get_device_memory_size_for_profile_v2(i) for i in profiles))
            except OutOfMemoryError:
                return None
        context = Context(self, strategy)
        process.made.append(context)
        return context


def activations(shapes: dict[str, Any]) -> int:
    """Bytes that an engine needs to compute with inputs of these shapes."""
    return BYTES_PER_ELEMENT * sum(math.prod(shape) for shape in shapes.values())


class Context:
    """IExecutionContext. `enqueued` counts runs, `bound` addresses that were set."""

    def __init__(self, engine: Engine, strategy: Strategy) -> None:
        self.engine, self.strategy, self.profile = engine, strategy, 0
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.addresses: dict[str, int] = {}
        self.memory, self.size, self.given = 0, 0, 0
        self.dirty = True
        self.enqueued, self.bound = 0, 0

    def set_optimization_profile_async(self, index: int, stream: int) -> bool:
        self.engine.process.gpu.stream(stream)
        self.profile, self.dirty = index, True
        return index < self.engine.num_optimization_profiles

    def set_input_shape(self, name: str, shape: Any) -> bool:
        least, _, most = self.engine.get_tensor_profile_shape(name, self.profile)
        if len(shape) != len(most) or not all(a <= b <= c for a, b, c in zip(least, shape, most, strict=True)):
            return False
        self.shapes[name], self.dirty = tuple(shape), True
        return True

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        fixed = self.engine.get_tensor_shape(name)
        if -1 not in fixed or name in self.engine.inputs:
            return self.shapes.get(name, fixed)
        return tuple(self._computed({n: np.zeros(*self._like(n)) for n in self.engine.inputs})[name].shape)

    def update_device_memory_size_for_shapes(self) -> int:
        growing = self.engine.made_of["profiles"][self.profile]
        self.size, self.dirty = activations({n: self.get_tensor_shape(n) for n in growing}), True
        return self.size

    def set_device_memory(self, memory: int, size: int) -> None:
        assert self.strategy == Strategy.USER_MANAGED
        assert memory % 256 == 0
        self.memory, self.given, self.dirty = memory, size, True

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        self.bound += 1
        return name in self.engine.names

    def execute_async_v3(self, handle: int) -> bool:
        stream = self.engine.process.gpu.stream(handle)
        if stream.captured is not None and (self.dirty or not self.engine.process.capturable):
            stream.spoilt = True  # what was put off would allocate and wait
            return False
        if self.strategy == Strategy.USER_MANAGED and not (0 < self.size <= self.given and self.memory):
            return False
        if any(not self.addresses.get(name) for name in self.engine.names):
            return False
        self.enqueued, self.dirty = self.enqueued + 1, False
        given = {name: (self.addresses[name], *self._like(name)) for name in self.engine.inputs}
        results = {name: self.addresses[name] for name in self.engine.outputs}
        memory, size = (self.memory, self.size) if self.strategy == Strategy.USER_MANAGED else (0, 0)

        def work() -> None:
            values = {name: _at(*where).copy() for name, where in given.items()}
            if memory:
                _at(memory, (size,), np.uint8).fill(0xAB)  # activations
            for name, value in self._computed(values).items():
                _at(results[name], value.shape, value.dtype)[...] = value

        stream.add(work)
        return True

    def _like(self, name: str) -> tuple[tuple[int, ...], Any]:
        return self.get_tensor_shape(name), _NUMPY[self.engine.get_tensor_dtype(name).name]

    def _computed(self, values: dict[str, Any]) -> dict[str, np.ndarray]:
        names = list(self.engine.outputs)
        return dict(zip(names, self.engine.session.run(names, values), strict=True))


def _at(address: int, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """The numbers at an address."""
    kind = np.dtype(dtype)
    room = (ctypes.c_uint8 * (math.prod(shape) * kind.itemsize)).from_address(address)
    return np.frombuffer(room, kind).reshape(shape)


def tensorrt_of(process: Process, *, rtx: bool = False) -> ModuleType:
    """The module `tensorrt` in a process, or `tensorrt_rtx`."""

    class ILogger:
        ERROR = 1

        def __init__(self) -> None:
            process.loggers.append(self)

    class Logger(ILogger):
        def __init__(self, severity: int = 1) -> None:
            super().__init__()

        def log(self, severity: int, message: str) -> None:
            """Prints nothing here."""

    def deserialize(buffer: Any) -> Engine | None:
        process.read.append(type(buffer))
        try:
            return Engine(process, json.loads(bytes(buffer)))
        except ValueError:
            for logger in process.loggers:
                logger.log(1, "Error Code 1: Serialization (Serialization assertion magicTag failed.)")
            return None

    module = ModuleType("tensorrt_rtx" if rtx else "tensorrt")
    if rtx:
        module.IRuntimeCache = object  # type: ignore[attr-defined]
        module.DynamicShapesKernelSpecializationStrategy = SimpleNamespace(EAGER="eager", LAZY="lazy")  # type: ignore[attr-defined]
    module.__dict__.update(
        __version__=VERSION,
        ILogger=ILogger,
        Logger=Logger,
        Runtime=lambda logger: SimpleNamespace(deserialize_cuda_engine=deserialize),
        TensorIOMode=Mode,
        ExecutionContextAllocationStrategy=Strategy,
        get_plugin_registry=lambda: process.registry,
    )
    return module

"""A GPU for tests: the names of CuPy that the product uses, over numpy, with the order of work that CUDA keeps.

Work goes into the current stream and is done late: only when that stream is waited for, in its order, and no other
stream's. New memory holds NaN. Freed memory is kept by the stream that it was taken in, and taken again in that stream,
whoever still reads it in another. Addresses are real, so that what a pointer is given to reads and writes memory.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np

ALIGNED = 512
GIB = 2**30


class OutOfMemoryError(MemoryError):
    """cupy.cuda.memory's."""


class CUDARuntimeError(RuntimeError):
    """cupy.cuda.runtime's."""


class CUDADriverError(RuntimeError):
    """cupy.cuda.driver's."""


class Gpu:
    """A machine with one GPU of `total` bytes; `dispatched` names numpy's functions that were called on its arrays."""

    def __init__(self, total: int = GIB) -> None:
        self.total, self.taken, self.others = total, 0, 0
        self.clock = 0.0  # milliseconds of work done
        self.to_host: list[int] = []  # bytes of every copy to the host
        self.graphs_launched = 0
        self.dispatched: list[str] = []
        self.streams: dict[int, Stream] = {}
        self.null = Stream(self, handle=0)
        self.current = [self.null]
        self.blocks: list[np.ndarray] = []  # never given back to the system: a stale address must not end the tests

    def launch(self, work: Callable[[], object]) -> None:
        """Put work into the current stream."""
        self.current[-1].add(work)

    def stream(self, handle: int) -> Stream:
        """The stream of a cudaStream_t."""
        return self.streams[handle]

    def take(self, size: int) -> None:
        """Take memory from the driver; raises OutOfMemoryError."""
        if self.taken + size + self.others > self.total:
            for stream in self.streams.values():
                self.taken -= sum(block.size for block in stream.arena)
                stream.arena.clear()
        if self.taken + size + self.others > self.total:
            raise OutOfMemoryError(f"Out of memory allocating {size:,} bytes (allocated so far: {self.taken:,} bytes).")
        self.taken += size

    def allocate(self, size: int) -> Memory:
        """Memory of the current stream's arena, poisoned when the stream gets there."""
        stream = self.current[-1]
        size = -(-max(size, 1) // ALIGNED) * ALIGNED
        fitting = [i for i, block in enumerate(stream.arena) if block.size >= size]
        if fitting:
            block = stream.arena.pop(min(fitting, key=lambda i: stream.arena[i].size))
        else:
            if stream.captured is not None:
                raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: memory was taken while capturing")
            self.take(size)
            room = np.full(size + ALIGNED, 0xFF, np.uint8)
            start = -room.ctypes.data % ALIGNED
            block = room[start : start + size]
            self.blocks.append(room)
        stream.add(lambda: block.fill(0xFF))
        return Memory(stream, block)


class Memory:
    """A block, which goes back to its stream's arena with the last array in it."""

    def __init__(self, stream: Stream, block: np.ndarray) -> None:
        self.stream, self.block = stream, block

    def __del__(self) -> None:
        self.stream.arena.append(self.block)


class Stream:
    """cupy.cuda.Stream."""

    def __init__(self, gpu: Gpu, handle: int | None = None) -> None:
        self.gpu = gpu
        self.ptr = 1000 + len(gpu.streams) if handle is None else handle
        self.waiting: deque[Callable[[], object]] = deque()
        self.captured: list[Callable[[], object]] | None = None
        self.spoilt = False
        self.arena: list[np.ndarray] = []
        self.synchronized = 0
        gpu.streams[self.ptr] = self

    def add(self, work: Callable[[], object]) -> None:
        """Put work into the stream, or into what is captured of it."""
        (self.waiting if self.captured is None else self.captured).append(work)

    def synchronize(self) -> None:
        """Do what is waiting."""
        if self.captured is not None:
            self.spoilt = True
            raise CUDARuntimeError("cudaErrorStreamCaptureUnsupported: the stream was waited for while capturing")
        self.synchronized += 1
        while self.waiting:
            self.waiting.popleft()()
            self.gpu.clock += 1

    def begin_capture(self) -> None:
        """Keep what comes next instead of doing it."""
        self.captured, self.spoilt = [], False

    def end_capture(self) -> Graph:
        """What was kept."""
        work, self.captured = self.captured, None
        assert work is not None
        if self.spoilt:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated: operation failed due to an earlier error")
        return Graph(self.gpu, work)

    def __enter__(self) -> Stream:
        self.gpu.current.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self.gpu.current.pop() is self


class Graph:
    """cupy.cuda.Graph."""

    def __init__(self, gpu: Gpu, work: list[Callable[[], object]]) -> None:
        self.gpu, self.work = gpu, work

    def launch(self, stream: Stream | None = None) -> None:
        """Do it all in a stream."""
        self.gpu.graphs_launched += 1
        for work in self.work:
            (stream or self.gpu.current[-1]).add(work)


class Event:
    """cupy.cuda.Event."""

    def __init__(self, gpu: Gpu) -> None:
        self.gpu, self.stream, self.time = gpu, gpu.null, math.nan

    def record(self, stream: Stream) -> None:
        """Mark a place in a stream."""
        self.stream = stream
        stream.add(self._reach)

    def synchronize(self) -> None:
        """Wait for the place."""
        self.stream.synchronize()

    def _reach(self) -> None:
        self.time = self.gpu.clock


def _launched(compute: Callable[..., Any]) -> Callable[..., Any]:
    """A method whose result is a new array, computed when the stream gets there."""

    def method(self: Array, *args: Any, **options: Any) -> Array:
        shaped = compute(np.ones(self.shape, self.dtype), *_ones(args), **options)
        result = Array.new(self.gpu, shaped.shape, shaped.dtype)
        ours, theirs = self.there, [a.there if isinstance(a, Array) else a for a in args]
        room = result.there
        self.gpu.launch(lambda: np.copyto(room, compute(ours, *theirs, **options)))
        return result

    return method


def _ones(args: tuple[Any, ...]) -> list[Any]:
    return [np.ones(a.shape, a.dtype) if isinstance(a, Array) else a for a in args]


class Array:
    """cupy.ndarray. `there` is what the GPU sees; a test must not look at it before the stream was waited for."""

    def __init__(self, gpu: Gpu, memory: Memory, there: np.ndarray) -> None:
        self.gpu, self.memory, self.there = gpu, memory, there
        self.data = SimpleNamespace(ptr=there.__array_interface__["data"][0])

    @classmethod
    def new(cls, gpu: Gpu, shape: tuple[int, ...], dtype: Any) -> Array:
        """An array in memory of its own."""
        kind = np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        memory = gpu.allocate(size)
        return cls(gpu, memory, memory.block[:size].view(kind).reshape(shape))

    shape = property(lambda self: self.there.shape)
    dtype = property(lambda self: self.there.dtype)
    ndim = property(lambda self: self.there.ndim)
    nbytes = property(lambda self: self.there.nbytes)
    argmax = _launched(lambda a, **o: np.asarray(np.argmax(a, **o)))
    sum = _launched(lambda a, **o: np.asarray(np.sum(a, **o)))
    copy = _launched(np.copy)
    __add__ = _launched(lambda a, b: a + b)
    __and__ = _launched(lambda a, b: a & b)
    __rshift__ = _launched(lambda a, b: a >> b)
    __lshift__ = _launched(lambda a, b: a << b)
    __radd__ = __add__
    __matmul__ = _launched(lambda a, b: a @ b)
    clip = _launched(lambda a, low, high: np.clip(a, low, high))
    round = _launched(lambda a: np.round(a))

    def __len__(self) -> int:
        return len(self.there)

    def __getitem__(self, key: Any) -> Array:
        return Array(self.gpu, self.memory, self.there[key])

    def __setitem__(self, key: Any, value: Any) -> None:
        room, given = self.there[key], value.there if isinstance(value, Array) else np.array(value)
        if isinstance(key, int):  # of a numpy array, that would be a number and no view
            room = self.there[key : key + 1].reshape(())
        assert given.ndim == 0 or isinstance(value, Array), "CuPy takes no numpy arrays here"
        np.broadcast_shapes(room.shape, given.shape)
        self.gpu.launch(lambda: np.copyto(room, given, casting="unsafe"))

    def reshape(self, *shape: Any) -> Array:
        """A view where that can be, else a copy."""
        seen = self.there.reshape(*shape)
        if np.shares_memory(seen, self.there) or not seen.size:
            return Array(self.gpu, self.memory, seen)
        return self.copy().reshape(*shape)

    def transpose(self, *axes: int) -> Array:
        """A view."""
        return Array(self.gpu, self.memory, self.there.transpose(*axes))

    def view(self, dtype: str) -> Array:
        """The same bits as another type."""
        return Array(self.gpu, self.memory, self.there.view(dtype))

    def astype(self, dtype: Any, copy: bool = True) -> Array:
        """Converted."""
        return self if not copy and self.dtype == dtype else _launched(lambda a: a.astype(dtype))(self)

    def get(self) -> np.ndarray:
        """A copy on the host, in the order of the current stream."""
        self.gpu.current[-1].synchronize()
        self.gpu.to_host.append(self.nbytes)
        return self.there.copy()

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed. Please use `.get()` to be explicit.")

    def __array_function__(self, function: Any, _: Any, args: Any, options: Any) -> Array:
        """As CuPy does for numpy's functions; the product is not to use that."""
        self.gpu.dispatched.append(function.__name__)
        first = args[0]
        if isinstance(first, list | tuple):
            return _joined(self.gpu, first, function, options)
        return _launched(lambda a, *rest: np.array(function(a, *rest, **options)))(first, *args[1:])

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, *, stream: Any = None) -> Any:
        raise AssertionError("nothing here asks one CuPy for another's arrays")


def _joined(gpu: Gpu, arrays: Any, function: Any, options: Any) -> Array:
    assert all(isinstance(a, Array) for a in arrays), "CuPy joins its own arrays only"
    shaped = function([np.ones(a.shape, a.dtype) for a in arrays], **options)
    result = Array.new(gpu, shaped.shape, shaped.dtype)
    seen, room = [a.there for a in arrays], result.there
    gpu.launch(lambda: np.copyto(room, function(seen, **options)))
    return result


def cupy_of(gpu: Gpu) -> ModuleType:
    """The module `cupy` on a machine."""

    def empty(shape: Any, dtype: Any = "float64") -> Array:
        return Array.new(gpu, (shape,) if isinstance(shape, int) else tuple(shape), dtype)

    def zeros(shape: Any, dtype: Any = "float64") -> Array:
        array = empty(shape, dtype)
        gpu.launch(lambda: array.there.fill(0))
        return array

    def asarray(value: Any, dtype: Any = None) -> Array:
        if isinstance(value, Array):
            return value if dtype is None else value.astype(dtype, copy=False)
        staged = np.array(value, dtype)  # the driver reads the host's memory before it returns
        array = empty(staged.shape, staged.dtype)
        gpu.launch(lambda: np.copyto(array.there, staged))
        return array

    def ascontiguousarray(array: Array, dtype: Any = None) -> Array:
        kept = array if dtype is None else array.astype(dtype, copy=False)
        return kept if kept.there.flags.c_contiguous else kept.copy()

    def concatenate(arrays: Any, axis: int = 0) -> Array:
        return _joined(gpu, list(arrays), np.concatenate, {"axis": axis})

    def elapsed(begin: Event, end: Event) -> float:
        assert not math.isnan(begin.time + end.time), "an event was asked before it was reached"
        return end.time - begin.time

    def from_dlpack(tensor: Any) -> Array:
        return tensor.__dlpack__(stream=gpu.current[-1].ptr)

    module = ModuleType("cupy")
    stream = lambda non_blocking=False: Stream(gpu)  # noqa: E731
    cuda = SimpleNamespace(
        Stream=stream,
        Event=lambda: Event(gpu),
        get_elapsed_time=elapsed,
        memory=SimpleNamespace(OutOfMemoryError=OutOfMemoryError),
        runtime=SimpleNamespace(
            CUDARuntimeError=CUDARuntimeError,
            deviceSynchronize=lambda: [stream.synchronize() for stream in list(gpu.streams.values())],
            memGetInfo=lambda: (gpu.total - gpu.taken - gpu.others, gpu.total),
        ),
        driver=SimpleNamespace(CUDADriverError=CUDADriverError),
    )
    module.__dict__.update(
        ndarray=Array,
        empty=empty,
        zeros=zeros,
        asarray=asarray,
        ascontiguousarray=ascontiguousarray,
        concatenate=concatenate,
        from_dlpack=from_dlpack,
        cuda=cuda,
        get_default_memory_pool=lambda: SimpleNamespace(
            free_bytes=lambda: sum(block.size for stream in gpu.streams.values() for block in stream.arena)
        ),
    )
    return module


@contextmanager
def without_gpu(module: ModuleType) -> Iterator[None]:
    """A machine whose driver is missing."""

    def fail(**_: object) -> Any:
        raise CUDARuntimeError("cudaErrorInsufficientDriver: CUDA driver version is insufficient")

    kept, module.cuda.Stream = module.cuda.Stream, fail
    yield
    module.cuda.Stream = kept

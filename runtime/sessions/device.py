"""Where tensors live: host memory, or a GPU's memory behind one stream.

A pipeline has one `Device`. Sessions and language models are opened with one, and say with `device` whose memory their
tensors are in. Slicing is all that a tensor does by itself; whatever computes or copies is asked of its device, because
on a GPU the work has to be put into the device's stream.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Literal, Protocol

import ml_dtypes  # noqa: F401 - numpy knows bfloat16 once this has registered it
import numpy as np
from numpy.typing import NDArray

from storm_edge.runtime.machine.memory import available_bytes

HostArray = NDArray[Any]
Memory = Literal["cpu", "cuda"]

HOST_MEMORY = (1, 3)  # DLPack's kinds of device that a processor reads: its own memory, and that pinned for a GPU


class Tensor(Protocol):
    """An array in a device's memory: numpy's, CuPy's, or any other of the DLPack protocol."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of its axes."""

    @property
    def dtype(self) -> Any:
        """The type of its numbers."""

    def __len__(self) -> int: ...
    def __getitem__(self, key: Any, /) -> Any: ...
    def __dlpack__(self, *, stream: Any = None) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...


class Device(Protocol):
    """A memory and what computes in it.

    As a context it makes its stream current, so that everything in the block is put there, and turns the GPU's errors
    into EngineError. Its own methods do that by themselves.
    """

    memory: Memory

    def put(self, tensor: Tensor) -> Any:
        """A tensor of host memory or of this device, in this device's memory; copied only where it must be."""

    def host(self, tensor: Tensor) -> HostArray:
        """A tensor of host memory or of this device, in host memory, after all work before it is done."""

    def empty(self, shape: Sequence[int], dtype: Any) -> Any:
        """A new tensor, of "bfloat16" too; what is in it is unknown."""

    def write(self, target: Tensor, source: Tensor) -> None:
        """Copy `source`, of host memory or of this device, into `target`; broadcast and converted to its type."""

    def concatenate(self, tensors: Iterable[Tensor], axis: int = 0) -> Any:
        """Tensors of this device in one."""

    def reshape(self, tensor: Tensor, shape: Sequence[int]) -> Any:
        """The same numbers in another shape, as a view where that can be."""

    def argmax(self, tensor: Tensor) -> int | None:
        """Where the largest number of a tensor [n] is, the first of equals; None where one of them is not finite."""

    def mark(self) -> Any:
        """The moment at which all work so far is done, for `seconds`."""

    def seconds(self, begin: Any, end: Any) -> float:
        """Seconds between two marks, once the work before them is done; waits for it."""

    def free_bytes(self) -> int:
        """How much of this device's memory could be taken now."""

    def watch_memory(self) -> None:
        """Look how much of a GPU's memory is taken, for `machine.memory.peak_device_bytes`.

        What a stage takes is seen after it too, since freed memory is kept for the next.
        """

    def __enter__(self) -> Any: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Stopwatch:
    """Adds up what a device spends in the blocks that it is the context of; the host does not wait in them."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._begin: Any = None
        self._blocks: list[tuple[Any, Any]] = []

    def __enter__(self) -> Stopwatch:
        self._begin = self._device.mark()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self._blocks.append((self._begin, self._device.mark()))

    def seconds(self) -> float:
        """The sum; waits for the last block to be done."""
        return sum((self._device.seconds(begin, end) for begin, end in self._blocks), 0.0)


class HostDevice:
    """Implements `Device`: numpy arrays in host memory. Everything is done when it returns."""

    memory: Memory = "cpu"

    def put(self, tensor: Tensor) -> HostArray:
        """A numpy view; numpy arrays pass through, types that DLPack lacks included."""
        return tensor if isinstance(tensor, np.ndarray) else np.from_dlpack(tensor)

    def host(self, tensor: Tensor) -> HostArray:
        """The same."""
        return self.put(tensor)

    def empty(self, shape: Sequence[int], dtype: Any) -> HostArray:
        """A new array."""
        return np.empty(tuple(shape), dtype)

    def write(self, target: Tensor, source: Tensor) -> None:
        """Copy into an array."""
        self.put(target)[...] = self.put(source)

    def concatenate(self, tensors: Iterable[Tensor], axis: int = 0) -> HostArray:
        """Arrays in one."""
        return np.concatenate([self.put(tensor) for tensor in tensors], axis)

    def reshape(self, tensor: Tensor, shape: Sequence[int]) -> HostArray:
        """The same numbers in another shape."""
        return self.put(tensor).reshape(tuple(shape))

    def argmax(self, tensor: Tensor) -> int | None:
        """Where the largest number is; None where one is not finite."""
        array = self.put(tensor)
        return int(array.argmax()) if np.isfinite(array).all() else None

    def mark(self) -> float:
        """Now."""
        return time.perf_counter()

    def seconds(self, begin: float, end: float) -> float:
        """Seconds between two marks."""
        return end - begin

    def free_bytes(self) -> int:
        """What the system could give without swapping."""
        return available_bytes()

    def watch_memory(self) -> None:
        """Nothing: the system keeps the mark of the process's own memory."""

    def __enter__(self) -> HostDevice:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


HOST = HostDevice()


def open_device(memory: Memory) -> Device:
    """The host, or the first GPU with a stream of its own; raises EngineError where that cannot be used."""
    if memory == "cpu":
        return HOST
    device: Device = importlib.import_module("storm_edge.runtime.sessions.cuda").CudaDevice()
    return device

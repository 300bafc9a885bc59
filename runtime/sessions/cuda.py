"""The first GPU, by CuPy. Written from its documentation; no machine of ours has run it yet.

Everything a pipeline does on a GPU goes into one stream, in order, so that nothing is read before it is written and no
memory is used again before its last reader is done: CuPy keeps freed memory by the stream it was taken in. The host
waits only before it reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Any

from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.machine.memory import saw_device_bytes
from storm_edge.runtime.machine.packages import import_cupy
from storm_edge.runtime.sessions.device import HOST, HOST_MEMORY, HostArray, Memory, Tensor


class CudaDevice:
    """Implements `Device`. CuPy has no bfloat16: its bits are kept as uint16, see `cast`."""

    memory: Memory = "cuda"

    def __init__(self) -> None:
        """Raises EngineError where CuPy or the GPU cannot be used."""
        self.cupy = cupy = import_cupy()
        self._out_of_memory = cupy.cuda.memory.OutOfMemoryError
        self._failures = (cupy.cuda.runtime.CUDARuntimeError, cupy.cuda.driver.CUDADriverError)
        try:
            self._stream = cupy.cuda.Stream(non_blocking=True)
            self._free = self._free_bytes()
        except self._failures as e:
            raise EngineError(f"no GPU can be used here ({_line(e)}): see `storm doctor`.") from e
        self._scratch: Any = None

    @property
    def stream(self) -> int:
        """The stream's handle, cudaStream_t, for libraries that take one."""
        return int(self._stream.ptr)

    def put(self, tensor: Tensor) -> Any:
        """A CuPy array; what is in host memory is read before this returns."""
        with self:
            if not on_host(tensor):
                return tensor if isinstance(tensor, self.cupy.ndarray) else self.cupy.from_dlpack(tensor)
            return self.cupy.asarray(HOST.put(tensor))

    def host(self, tensor: Tensor) -> HostArray:
        """A numpy array; waits for the stream where the tensor is on the GPU."""
        if on_host(tensor):
            return HOST.host(tensor)
        with self:
            array: HostArray = self.put(tensor).get()  # in the current stream, and waits for it
            return array

    def empty(self, shape: Sequence[int], dtype: Any) -> Any:
        """A new CuPy array; of "bfloat16", its bits."""
        with self:
            return self.cupy.empty(tuple(shape), "uint16" if dtype == "bfloat16" else dtype)

    def zeros(self, shape: Sequence[int], dtype: Any) -> Any:
        """A new CuPy array of zeros; of "bfloat16", their bits."""
        with self:
            return self.cupy.zeros(tuple(shape), "uint16" if dtype == "bfloat16" else dtype)

    def pointer(self, array: Any) -> int:
        """The address of a CuPy array's first element."""
        return int(array.data.ptr)

    def scratch(self, size: int) -> int:
        """The address of a block of `size` bytes or more, for what runs in turn in the stream and keeps nothing in it.

        It moves when it grows.
        """
        with self:
            if self._scratch is None or self._scratch.nbytes < size:
                self._scratch = None  # given back before a larger one is taken
                self._scratch = self.cupy.empty(size, "uint8")
            return self.pointer(self._scratch)

    def capture(self, work: Callable[[], bool]) -> Any:
        """What `work` puts into the stream as a CUDA graph, which is not run yet; None where that is not possible."""
        with self:
            self._stream.begin_capture()
            try:
                done = work()
            finally:
                try:
                    graph = self._stream.end_capture()
                except self._failures:
                    done = False
            return graph if done else None

    def write(self, target: Tensor, source: Tensor) -> None:
        """Copy into a CuPy array; between bfloat16, which are bits here, and floats as numbers."""
        with self:
            into, array = self.put(target), self.put(source)
            if into.dtype == "uint16":
                array = to_bfloat16_bits(array)
            elif array.dtype == "uint16":
                array = from_bfloat16_bits(array)
            into[...] = array

    def concatenate(self, tensors: Iterable[Tensor], axis: int = 0) -> Any:
        """CuPy arrays in one."""
        with self:
            return self.cupy.concatenate([self.put(tensor) for tensor in tensors], axis)

    def reshape(self, tensor: Tensor, shape: Sequence[int]) -> Any:
        """The same numbers in another shape."""
        with self:
            return self.put(tensor).reshape(tuple(shape))

    def cast(self, tensor: Tensor, dtype: str) -> Any:
        """A tensor in this device's memory, C-contiguous, as a type of CuPy's or as "bfloat16", kept as uint16 bits."""
        with self:
            array = self.put(tensor)
            if dtype == "bfloat16":
                array = to_bfloat16_bits(array)
            elif array.dtype == "uint16":
                array = from_bfloat16_bits(array)
            return self.cupy.ascontiguousarray(array, None if dtype == "bfloat16" else dtype)

    def argmax(self, tensor: Tensor) -> int | None:
        """Where the largest number is; 16 bytes go to the host, however long the tensor is."""
        with self:
            array = self.put(tensor)
            found = self.cupy.empty(2, "float64")
            found[0] = array.argmax()
            found[1] = array.sum(dtype="float64")  # not finite where one of them is not
            place, total = (float(x) for x in found.get())
        return int(place) if math.isfinite(total) else None

    def mark(self) -> Any:
        """An event in the stream."""
        with self:
            event = self.cupy.cuda.Event()
            event.record(self._stream)
            return event

    def seconds(self, begin: Any, end: Any) -> float:
        """Seconds that passed on the GPU; waits for the second mark."""
        with self:
            end.synchronize()
            return float(self.cupy.cuda.get_elapsed_time(begin, end)) / 1000

    def free_bytes(self) -> int:
        """What the driver has left, and what CuPy keeps for the next that asks."""
        with self:
            return self._free_bytes() + int(self.cupy.get_default_memory_pool().free_bytes())

    def watch_memory(self) -> None:
        """Note what anybody has taken from the GPU since it was opened, without what the driver keeps."""
        with self:
            saw_device_bytes(self._free - self._free_bytes())

    def _free_bytes(self) -> int:
        return int(self.cupy.cuda.runtime.memGetInfo()[0])

    def __enter__(self) -> CudaDevice:
        self._stream.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.__exit__(kind, error, trace)
        if isinstance(error, self._out_of_memory):
            raise EngineError(f"the GPU has not enough memory ({_line(error)}): {MORE_MEMORY}.") from error
        if isinstance(error, self._failures):
            raise EngineError(f"the GPU failed ({_line(error)}): see `storm doctor`, then try again.") from error


MORE_MEMORY = "take fewer frames or a larger --sample, end what else uses the GPU, or see what fits with `storm plan`"


def on_host(tensor: Tensor) -> bool:
    """Whether a tensor is in memory that the processor reads."""
    return tensor.__dlpack_device__()[0] in HOST_MEMORY


def to_bfloat16_bits(array: Any) -> Any:
    """fp32 or fp16 array -> the upper halves of its bits as fp32, rounded to nearest even; uint16 passes through."""
    if array.dtype == "uint16":
        return array
    bits = array.astype("float32").view("uint32")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("uint16")


def from_bfloat16_bits(array: Any) -> Any:
    """The inverse: uint16 bits -> fp32."""
    return (array.astype("uint32") << 16).view("float32")


def _line(error: BaseException) -> str:
    return " ".join(str(error).split())

"""What every way of running a graph offers."""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class SupportsDLPack(Protocol):
    """Any tensor of the DLPack protocol: a numpy array, a torch tensor, a device buffer."""

    def __dlpack__(self, *, stream: Any = None) -> Any: ...
    def __dlpack_device__(self) -> tuple[int, int]: ...


class Session(Protocol):
    """A loaded graph. Tensors go in and come out as DLPack, on the session's device."""

    def run(self, **inputs: SupportsDLPack) -> dict[str, Array]:
        """Run once; keys are the graph's input and output names. Raises EngineError."""
        ...


def to_host(array: Any) -> Array:
    """A session's output in host memory."""
    return np.asarray(array.get() if hasattr(array, "get") else array)


def beside(array: Any, other: Any) -> Any:
    """`array` where `other` is, in host memory or on the device, so that the two can be joined."""
    return to_host(array) if isinstance(other, np.ndarray) else importlib.import_module("cupy").asarray(array)


def host_array(tensor: SupportsDLPack) -> Array:
    """A numpy view of a tensor in host memory; numpy arrays pass through, types DLPack lacks included."""
    return tensor if isinstance(tensor, np.ndarray) else np.from_dlpack(tensor)

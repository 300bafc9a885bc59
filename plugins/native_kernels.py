"""What libstorm_cpu.so and libstorm_cuda.so share: how they are called by address, and switching them off."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from storm_edge.plugins.libraries import find_library
from storm_edge.plugins.op_schema import FLOATING

# What the selective scans take at most; PyTorch's own form takes more.
MAXIMUM_STATE = 256


@contextmanager
def without_native_kernels() -> Iterator[None]:
    """PyTorch's own forms inside the block, on CPU and GPU: what native kernels are verified against."""
    token = _switched_off.set(True)
    try:
        yield
    finally:
        _switched_off.reset(token)


def find_kernels(name: str) -> Path | None:
    """The library of this file name, or None where kernels are switched off or it has not been built."""
    return None if _switched_off.get() else find_library(name)


def call_by_address(
    function: ctypes._NamedFuncPointer,
    dtype: str,
    sizes: Sequence[int],
    reverse: bool,
    addresses: Sequence[int],
    *others: Any,
) -> Any:
    """Call a kernel on the arrays at `addresses`; `others` are the ctypes values that only its library takes."""
    return function(
        ctypes.c_int(FLOATING.index(dtype)),
        *map(ctypes.c_int64, sizes),
        ctypes.c_int(reverse),
        *map(ctypes.c_void_p, addresses),
        *others,
    )


_switched_off: ContextVar[bool] = ContextVar("storm_native_kernels_switched_off", default=False)

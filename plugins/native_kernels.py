"""What libstorm_cpu.so and libstorm_cuda.so share: how they are called by address, and switching them off."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from storm_edge.plugins.libraries import find_library
from storm_edge.plugins.op_schema import FLOATING, Schema

# What the selective scans take at most; PyTorch's own form takes more.
MAXIMUM_STATE = 256
_LARGEST = (1 << 63) - 1


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
    schema: Schema,
    dtype: str,
    sizes: Sequence[int],
    reverse: bool,
    addresses: Sequence[int],
    *others: Any,
    workspaces: int = 0,
) -> Any:
    """Call a kernel on the arrays at `addresses`; `others` are the ctypes values that only its library takes.

    `workspaces` is how many addresses follow the arrays', which may be 0. Raises ValueError, before anything is called,
    for a type, sizes or addresses that no call of the operator has; how long the arrays are is the caller's word.
    """
    name, arrays = schema.qualified_name, len(schema.inputs) + len(schema.outputs)
    if dtype not in FLOATING:
        raise ValueError(f"{name}: the type must be one of {', '.join(FLOATING)}, got {dtype}")
    if len(sizes) != 4 or not all(1 <= size <= _LARGEST for size in sizes):
        raise ValueError(f"{name}: takes 4 sizes from 1 to 2^63 - 1, got {list(sizes)}")
    if len(addresses) != arrays + workspaces or not all(addresses[:arrays]):
        raise ValueError(f"{name}: takes {arrays + workspaces} addresses, got {list(addresses)}")
    return function(
        ctypes.c_int(FLOATING.index(dtype)),
        *map(ctypes.c_int64, sizes),
        ctypes.c_int(reverse),
        *map(ctypes.c_void_p, addresses),
        *others,
    )


_switched_off: ContextVar[bool] = ContextVar("storm_native_kernels_switched_off", default=False)

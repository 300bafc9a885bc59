"""The CPU kernels of libstorm_cpu.so by memory address, where it has been built (standard library only)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from storm_edge.plugins.causal_conv1d import op as causal_conv1d
from storm_edge.plugins.libraries import CPU
from storm_edge.plugins.native_kernels import call_by_address, find_kernels
from storm_edge.plugins.op_schema import Schema
from storm_edge.plugins.selective_scan import op as selective_scan

# What the convolution takes at most; PyTorch's own form and the CUDA kernel take more.
MAXIMUM_WIDTH = 256


class CpuKernels:
    """The functions of the library; every one runs `threads` threads and raises ValueError with the kernel's reason."""

    def __init__(self, library: Path):
        self._library = ctypes.CDLL(str(library))
        self._library.storm_instruction_set.restype = ctypes.c_char_p
        self._library.storm_exponentials_per_second.restype = ctypes.c_double

    @property
    def instruction_set(self) -> str:
        """What the kernels run on: avx512, avx2, neon or portable."""
        name: bytes = self._library.storm_instruction_set()
        return name.decode()

    def exponentials_per_second(self) -> float:
        """How many exponentials one thread computes in a second when it does nothing else."""
        return float(self._library.storm_exponentials_per_second())

    def selective_scan(
        self, dtype: str, sizes: Sequence[int], reverse: bool, addresses: Sequence[int], threads: int
    ) -> None:
        """SelectiveScan on contiguous arrays; sizes: batch, length, channels, state; inputs, then outputs."""
        self._call(self._library.storm_selective_scan, selective_scan.SCHEMA, dtype, sizes, reverse, addresses, threads)

    def causal_conv1d(
        self, dtype: str, sizes: Sequence[int], reverse: bool, addresses: Sequence[int], threads: int
    ) -> None:
        """CausalConv1d on contiguous arrays; sizes: batch, length, channels, width; inputs, then outputs."""
        self._call(self._library.storm_causal_conv1d, causal_conv1d.SCHEMA, dtype, sizes, reverse, addresses, threads)

    @staticmethod
    def _call(
        function: ctypes._NamedFuncPointer,
        schema: Schema,
        dtype: str,
        sizes: Sequence[int],
        reverse: bool,
        addresses: Sequence[int],
        threads: int,
    ) -> None:
        error = ctypes.create_string_buffer(256)
        rest = (ctypes.c_int(threads), error, ctypes.c_size_t(len(error)))
        if call_by_address(function, schema, dtype, sizes, reverse, addresses, *rest):
            raise ValueError(error.value.decode())


def cpu_kernels() -> CpuKernels | None:
    """The kernels, or None where they are switched off or not built; raises OSError where they cannot be loaded."""
    library = find_kernels(CPU)
    return None if library is None else _load(library)


_load = cache(CpuKernels)

"""The CUDA kernels of libstorm_cuda.so by memory address, where it has been built (standard library only)."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from storm_edge.plugins.causal_conv1d import op as causal_conv1d
from storm_edge.plugins.libraries import CUDA, build_command
from storm_edge.plugins.native_kernels import call_by_address, find_kernels
from storm_edge.plugins.op_schema import Schema
from storm_edge.plugins.selective_scan import op as selective_scan


class CudaKernels:
    """The functions of the library: they enqueue on `stream` (a cudaStream_t's address) of the current device.

    They return before the work is done; where it cannot be enqueued, they raise RuntimeError with CUDA's reason.
    """

    def __init__(self, library: Path):
        self._library = ctypes.CDLL(str(library))
        self._library.storm_cuda_selective_scan_workspace.restype = ctypes.c_size_t
        for function in (self._library.storm_cuda_selective_scan, self._library.storm_cuda_causal_conv1d):
            function.restype = ctypes.c_char_p

    def selective_scan_workspace(self, sizes: Sequence[int]) -> int:
        """How many bytes `selective_scan` needs besides its arrays; sizes: batch, length, channels, state."""
        return int(self._library.storm_cuda_selective_scan_workspace(*map(ctypes.c_int64, sizes)))

    def selective_scan(
        self, dtype: str, sizes: Sequence[int], reverse: bool, addresses: Sequence[int], stream: int
    ) -> None:
        """SelectiveScan on contiguous arrays; sizes: batch, length, channels, state; inputs, outputs, workspace."""
        self._call(
            self._library.storm_cuda_selective_scan, selective_scan.SCHEMA, dtype, sizes, reverse, addresses, stream, 1
        )

    def causal_conv1d(
        self, dtype: str, sizes: Sequence[int], reverse: bool, addresses: Sequence[int], stream: int
    ) -> None:
        """CausalConv1d on contiguous arrays; sizes: batch, length, channels, width; inputs, then outputs."""
        self._call(
            self._library.storm_cuda_causal_conv1d, causal_conv1d.SCHEMA, dtype, sizes, reverse, addresses, stream
        )

    @staticmethod
    def _call(
        function: ctypes._NamedFuncPointer,
        schema: Schema,
        dtype: str,
        sizes: Sequence[int],
        reverse: bool,
        addresses: Sequence[int],
        stream: int,
        workspaces: int = 0,
    ) -> None:
        error: bytes | None = call_by_address(
            function, schema, dtype, sizes, reverse, addresses, ctypes.c_void_p(stream), workspaces=workspaces
        )
        if error is None:
            return
        advice = {
            b"cudaErrorNoKernelImageForDevice": f": it was built for other GPUs: run `{build_command()}` here",
            b"cudaErrorInvalidValue": f" for the sizes {', '.join(map(str, sizes))}",
        }
        raise RuntimeError(f"{schema.qualified_name} on CUDA failed with {error.decode()}{advice.get(error, '')}")


def cuda_kernels() -> CudaKernels | None:
    """The kernels, or None where they are switched off or not built; raises OSError where they cannot be loaded."""
    library = find_kernels(CUDA)
    return None if library is None else _load(library)


_load = cache(CudaKernels)

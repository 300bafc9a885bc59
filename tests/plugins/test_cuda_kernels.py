"""libstorm_cuda.so without a GPU: it loads, knows its workspace, and refuses sizes before it asks for a device."""

import ctypes

import pytest

from storm_edge.plugins.cuda_kernels import CudaKernels, cuda_kernels
from storm_edge.plugins.libraries import CUDA
from storm_edge.plugins.native_kernels import without_native_kernels


@pytest.fixture(scope="module")
def kernels(built) -> CudaKernels:
    return CudaKernels(built(CUDA))


def test_the_workspace_does_not_grow_with_a_long_sequence(kernels: CudaKernels) -> None:
    assert kernels.selective_scan_workspace((1, 64, 7168, 16)) == 0
    needed = kernels.selective_scan_workspace((1, 8192, 7168, 16))
    assert 1_000_000 < needed < 16_000_000
    assert kernels.selective_scan_workspace((1, 131_072, 7168, 16)) == needed


def test_a_smaller_batch_never_needs_more_workspace(kernels: CudaKernels) -> None:
    needed = [kernels.selective_scan_workspace((batch, 8192, 64, 16)) for batch in range(1, 30)]
    assert needed == sorted(needed)


def test_sizes_that_the_kernels_do_not_take_are_refused_with_the_sizes(kernels: CudaKernels) -> None:
    with pytest.raises(RuntimeError, match=r"SelectiveScan on CUDA failed with cudaErrorInvalidValue .* 1, 4, 8, 257$"):
        kernels.selective_scan("float32", (1, 4, 8, 257), False, [1] * 11 + [0], 0)
    with pytest.raises(RuntimeError, match=r"CausalConv1d on CUDA failed with cudaErrorInvalidValue .* 1, 4, 8, 1$"):
        kernels.causal_conv1d("float32", (1, 4, 8, 1), False, [1] * 6, 0)


def test_a_sequence_of_several_chunks_is_refused_without_a_workspace(kernels: CudaKernels) -> None:
    with pytest.raises(RuntimeError, match="cudaErrorInvalidValue"):
        kernels.selective_scan("float32", (1, 129, 8, 16), False, [1] * 11 + [0], 0)


def test_the_library_shows_its_own_functions_only(built) -> None:
    library = ctypes.CDLL(str(built(CUDA)))
    for name in ("cudaMalloc", "cudaGetErrorName"):
        assert not hasattr(library, name), f"{name} could meet PyTorch's"


def test_the_kernels_are_switched_off_with_those_of_the_cpu() -> None:
    with without_native_kernels():
        assert cuda_kernels() is None

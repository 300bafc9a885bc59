"""libstorm_cpu.so called by address: what no call can have is refused by name before memory is touched."""

import ctypes

import pytest

from storm_edge.plugins.cpu_kernels import CpuKernels
from storm_edge.plugins.cuda_kernels import CudaKernels
from storm_edge.plugins.libraries import CPU, CUDA

SIZES = (1, 2, 3, 4)
LARGEST = (1 << 63) - 1


@pytest.fixture(scope="module")
def library(built) -> ctypes.CDLL:
    return ctypes.CDLL(str(built(CPU)))


@pytest.fixture(params=[("storm_selective_scan", 9), ("storm_causal_conv1d", 4)], ids=["scan", "conv"])
def refusal(library, request):
    """refusal(kind=0, sizes=SIZES, reverse=0, without=None, threads=1): what the library itself says of a call."""
    function, inputs = request.param
    array = (ctypes.c_float * 64)()

    def call(kind=0, sizes=SIZES, reverse=0, without=None, threads=1):
        arrays = [ctypes.c_void_p(None if i == without else ctypes.addressof(array)) for i in range(inputs + 2)]
        error = ctypes.create_string_buffer(256)
        refused = getattr(library, function)(
            ctypes.c_int(kind),
            *map(ctypes.c_int64, sizes),
            ctypes.c_int(reverse),
            *arrays,
            ctypes.c_int(threads),
            error,
            ctypes.c_size_t(len(error)),
        )
        assert refused == 1
        return error.value.decode()

    return call


@pytest.mark.parametrize(
    ("call", "words"),
    [
        ({"kind": 3}, "type must be 0, 1 or 2, got 3"),
        ({"kind": -1}, "type must be 0, 1 or 2, got -1"),
        ({"reverse": 2}, "reverse must be 0 or 1, got 2"),
        ({"threads": 0}, "threads must be 1 to 1024, got 0"),
        ({"threads": 1 << 30}, "threads must be 1 to 1024, got 1073741824"),
        ({"without": 0}, " must have an address, got null"),
        ({"without": 3}, " must have an address, got null"),
        ({"without": 5}, " must have an address, got null"),
        ({"sizes": (0, 2, 3, 4)}, "batch must be at least 1, got 0"),
        ({"sizes": (1, -2, 3, 4)}, "length must be at least 1, got -2"),
        ({"sizes": (1, 2, 3, 257)}, " must be "),
        ({"sizes": (LARGEST, LARGEST, LARGEST, 4)}, "must be at most 2^56"),
        ({"sizes": (1 << 31, 1 << 31, 1 << 31, 4)}, "must be at most 2^56"),
        ({"sizes": (1, 1, LARGEST, 2)}, "must be at most 2^56"),
    ],
)
def test_the_library_refuses_what_no_call_can_have(call, words, refusal):
    said = refusal(**call)
    assert said.startswith("storm::")
    assert words in said


@pytest.mark.parametrize(
    ("dtype", "sizes", "addresses", "words"),
    [
        ("float64", SIZES, [1] * 11, "the type must be one of float32, float16, bfloat16, got float64"),
        ("float32", (1, 2, 3), [1] * 11, r"takes 4 sizes from 1 to 2\^63 - 1, got \[1, 2, 3\]"),
        ("float32", (1, 2, 3, 1 << 64), [1] * 11, "takes 4 sizes"),
        ("float32", SIZES, [1] * 10, "takes 11 addresses"),
        ("float32", SIZES, [1] * 12, "takes 11 addresses"),
        ("float32", SIZES, [1] * 10 + [0], "takes 11 addresses"),
    ],
)
def test_a_call_by_address_is_refused_before_it_is_made(dtype, sizes, addresses, words, built):
    with pytest.raises(ValueError, match=f"^storm::SelectiveScan: {words}"):
        CpuKernels(built(CPU)).selective_scan(dtype, sizes, False, addresses, 1)


def test_a_scan_on_a_gpu_takes_a_workspace_as_well(built):
    with pytest.raises(ValueError, match="takes 12 addresses"):
        CudaKernels(built(CUDA)).selective_scan("float32", SIZES, False, [1] * 11, 0)

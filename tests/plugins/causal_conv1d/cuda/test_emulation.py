"""The CUDA kernel's threads, played by the host: the same header, without a GPU."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from storm_edge.plugins.causal_conv1d.op import INPUTS, SCHEMA

HERE = Path(__file__).parent
PLUGINS = HERE.parents[3] / "plugins"

COMPILER = shutil.which("c++") or shutil.which("g++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: install g++ to test the CUDA algorithm")


@pytest.fixture(scope="module")
def emulate(tmp_path_factory):
    """emulate(inputs, reverse, any_width=False): y and the final state; T is float32, as the host knows no half."""
    target = tmp_path_factory.mktemp("emulation") / "emulation.so"
    flags = ["-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", f"-I{PLUGINS}", "-shared", "-fPIC"]
    subprocess.run([COMPILER, *flags, str(HERE / "emulation.cpp"), "-o", str(target)], check=True)
    function = ctypes.CDLL(str(target)).emulate_conv
    function.restype = None
    function.argtypes = [ctypes.c_int64] * 4 + [ctypes.c_int] + [ctypes.c_void_p] * 6 + [ctypes.c_int]

    def run(inputs, reverse, any_width=False):
        arrays = {name: np.ascontiguousarray(inputs[name], dtype=np.float32) for name in INPUTS}
        sizes = SCHEMA.check_shapes({name: array.shape for name, array in arrays.items()})
        y = np.full_like(arrays["x"], np.nan)
        final_state = np.full_like(arrays["initial_state"], np.nan)
        function(
            *(sizes[axis] for axis in ("batch", "length", "channels", "width")),
            int(reverse),
            *(array.ctypes.data for array in (*arrays.values(), y, final_state)),
            int(any_width),
        )
        return y, final_state

    return run


def test_the_emulated_threads_equal_the_float64_loop(conv_case, assert_conv_correct, emulate):
    assert_conv_correct(lambda inputs, dtype, reverse: emulate(inputs, reverse), conv_case)


@pytest.mark.parametrize("width", [2, 3, 4, 5, 9])
@pytest.mark.parametrize("reverse", [False, True])
def test_any_width_equals_the_float64_loop_with_and_without_a_kernel_of_its_own(
    width, reverse, emulate, conv_inputs, conv_oracle, assert_close
):
    inputs = conv_inputs(2, 131, 66, width)
    for any_width in (False, True):
        for got, expected in zip(emulate(inputs, reverse, any_width), conv_oracle(inputs, reverse), strict=True):
            assert_close(got, expected, "float32")


@pytest.mark.parametrize("reverse", [False, True])
def test_convolving_in_pieces_with_carried_states_equals_convolving_at_once(
    reverse, conv_inputs, assert_pieces_equal_whole, emulate
):
    run = lambda inputs, dtype, reverse: emulate(inputs, reverse)  # noqa: E731
    assert_pieces_equal_whole(run, SCHEMA, conv_inputs(2, 300, 5, 4), (1, 3, 20, 299), reverse)

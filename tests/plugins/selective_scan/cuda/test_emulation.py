"""The CUDA kernel's blocks, played by host threads: the same headers, no GPU (emulation.cpp says what is missing)."""

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from storm_edge.plugins.selective_scan.op import INPUTS, SCHEMA

HERE = Path(__file__).parent
PLUGINS = HERE.parents[3] / "plugins"
CHUNK = 128  # tokens, kChunkTokens in plan.h
SOURCE_ORDER, BACKWARDS, SHUFFLED = 0, 1, 2

COMPILER = shutil.which("c++") or shutil.which("g++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: install g++ to test the CUDA algorithm")


def compile_emulation(target: Path, *flags: str) -> Path:
    command = [COMPILER, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{PLUGINS}", *flags]
    subprocess.run([*command, str(HERE / "emulation.cpp"), "-o", str(target)], check=True)
    return target


@pytest.fixture(scope="module")
def emulate(tmp_path_factory):
    """emulate(inputs, reverse, workers=3, in_flight=0, order=0): y, final state and the number of chunks."""
    library = ctypes.CDLL(
        str(compile_emulation(tmp_path_factory.mktemp("emulation") / "emulation.so", "-shared", "-fPIC"))
    )
    library.emulate_scan.restype = ctypes.c_int64
    library.emulate_scan.argtypes = [ctypes.c_int64] * 4 + [ctypes.c_int] + [ctypes.c_void_p] * 11 + [ctypes.c_int] * 3

    def run(inputs, reverse, workers=3, in_flight=0, order=SOURCE_ORDER):
        arrays = {name: np.ascontiguousarray(inputs[name], dtype=np.float32) for name in INPUTS}
        sizes = SCHEMA.check_shapes({name: array.shape for name, array in arrays.items()})
        y = np.full_like(arrays["u"], np.nan)
        final_state = np.full_like(arrays["initial_state"], np.nan)
        chunks = library.emulate_scan(
            *(sizes[axis] for axis in ("batch", "length", "channels", "state")),
            int(reverse),
            *(array.ctypes.data for array in (*arrays.values(), y, final_state)),
            workers,
            in_flight,
            order,
        )
        assert chunks > 0, "a block waited forever"
        return y, final_state, chunks

    return run


@pytest.fixture(scope="module")
def run(emulate):
    """With T as float32, because the host knows no half types: they only change loads and stores."""
    return lambda inputs, dtype, reverse: emulate(inputs, reverse)[:2]


def test_the_emulated_blocks_equal_the_float64_loop(scan_case, assert_scan_correct, run):
    assert_scan_correct(run, scan_case)


@pytest.mark.parametrize("chunks", range(1, 10))
@pytest.mark.parametrize("reverse", [False, True])
def test_any_number_of_chunks_equals_the_float64_loop(chunks, reverse, emulate, scan_inputs, scan_oracle, assert_close):
    for length in (CHUNK * (chunks - 1) + 1, CHUNK * chunks):
        inputs = scan_inputs(1, length, 33, 3)
        y, final_state, got = emulate(inputs, reverse)
        assert got == chunks
        expected_y, expected_state = scan_oracle(inputs, reverse)
        assert_close(y, expected_y, "float32")
        assert_close(final_state, expected_state, "float32")


@pytest.mark.parametrize("state", [1, 15, 16, 17, 40, 256])
def test_any_number_of_states_equals_the_float64_loop(state, emulate, scan_inputs, scan_oracle, assert_close):
    inputs = scan_inputs(1, 2 * CHUNK + 3, 5, state)
    inputs["C"] /= np.sqrt(state)
    for got, expected in zip(emulate(inputs, True), scan_oracle(inputs, True), strict=False):
        assert_close(got, expected, "float32")


@pytest.mark.parametrize("channels", [1, 2, 31, 32, 64, 65])
def test_any_number_of_channels_and_batches_equals_the_float64_loop(
    channels, emulate, scan_inputs, scan_oracle, assert_close
):
    inputs = scan_inputs(3, CHUNK + 9, channels, 2)
    for got, expected in zip(emulate(inputs, False), scan_oracle(inputs, False), strict=False):
        assert_close(got, expected, "float32")


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_rings_that_are_used_again_change_no_bit_however_many_blocks_run(workers, in_flight, emulate, scan_inputs):
    inputs = scan_inputs(1, 24 * CHUNK - 7, 40, 4)
    expected = emulate(inputs, False, workers=1)
    got = emulate(inputs, False, workers=workers, in_flight=in_flight)
    for one, other in zip(got[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("order", [BACKWARDS, SHUFFLED])
def test_the_order_of_threads_between_two_barriers_changes_no_bit(order, emulate, scan_inputs):
    inputs = scan_inputs(1, 5 * CHUNK - 7, 40, 17)
    for one, other in zip(emulate(inputs, True, order=order), emulate(inputs, True), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("reverse", [False, True])
def test_scanning_in_pieces_with_carried_states_equals_scanning_at_once(
    reverse, run, scan_inputs, assert_pieces_equal_whole
):
    assert_pieces_equal_whole(run, SCHEMA, scan_inputs(2, 300, 5, 16), (1, CHUNK, 290), reverse)


def test_softplus_is_linear_above_20_and_never_overflows(assert_softplus_is_linear_above_20, run):
    assert_softplus_is_linear_above_20(run)


@pytest.mark.parametrize("sanitizer", ["thread", "address"])
def test_a_sanitizer_finds_nothing_while_blocks_look_back(sanitizer, tmp_path):
    program = compile_emulation(tmp_path / "emulation", f"-fsanitize={sanitizer}", "-DEMULATION_MAIN", "-g")
    result = subprocess.run([str(program)], check=False, capture_output=True, text=True, timeout=120)
    if "unexpected memory mapping" in result.stderr:
        pytest.skip("this kernel's address randomisation is too much for this compiler's ThreadSanitizer")
    assert result.returncode == 0, result.stdout + result.stderr

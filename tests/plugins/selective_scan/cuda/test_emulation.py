"""The CUDA kernel's blocks, played by host threads: the same headers, no GPU (emulation.cpp says what is missing)."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from storm_edge.plugins.selective_scan.op import INPUTS, SCHEMA

HERE = Path(__file__).parent
PLUGINS = HERE.parents[3] / "plugins"
CHUNK, ROW = 64, 64  # tokens and channels of a block, kChunkTokens and kRowChannels in plan.h
SOURCE_ORDER, BACKWARDS, SHUFFLED = 0, 1, 2

COMPILER = shutil.which("c++") or shutil.which("g++")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C++ compiler: install g++ to test the CUDA algorithm")


def compile_emulation(target: Path, *flags: str, source: str = "emulation.cpp") -> Path:
    command = [COMPILER, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread", f"-I{PLUGINS}", *flags]
    subprocess.run([*command, str(HERE / source), "-o", str(target)], check=True)
    return target


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    flags = ("-shared", "-fPIC", "-fsanitize=undefined", "-fsanitize-undefined-trap-on-error")
    return ctypes.CDLL(str(compile_emulation(tmp_path_factory.mktemp("emulation") / "emulation.so", *flags)))


@pytest.fixture(scope="module")
def emulate(library):
    """emulate(inputs, reverse, workers=3, in_flight=0, order=0): y, final state and the number of chunks."""
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


@pytest.mark.parametrize("channels", [1, 2, 31, 63, 64, 65, 130])
def test_any_number_of_channels_and_batches_equals_the_float64_loop(
    channels, emulate, scan_inputs, scan_oracle, assert_close
):
    inputs = scan_inputs(3, CHUNK + 9, channels, 2)
    for got, expected in zip(emulate(inputs, False), scan_oracle(inputs, False), strict=False):
        assert_close(got, expected, "float32")


@pytest.mark.parametrize("channels", [2, 64, 66, 130])
@pytest.mark.parametrize("length", [1, 7, CHUNK, 3 * CHUNK + 9])
@pytest.mark.parametrize("reverse", [False, True])
def test_what_is_moved_in_vectors_equals_the_float64_loop(
    length, channels, reverse, emulate, scan_inputs, scan_oracle, assert_close
):
    inputs = scan_inputs(2, length, channels, 16)
    for got, expected in zip(emulate(inputs, reverse), scan_oracle(inputs, reverse), strict=False):
        assert_close(got, expected, "float32")


def test_vectors_and_single_elements_give_the_same_bits(emulate, scan_inputs):
    inputs = scan_inputs(1, 3 * CHUNK + 9, 66, 16)
    y, final_state, _ = emulate(inputs, True)
    odd = {name: array[..., :65] if array.shape[-1] == 66 else array for name, array in inputs.items()}
    odd |= {name: inputs[name][..., :65, :] for name in ("A", "initial_state")}
    got_y, got_state, _ = emulate(odd, True)
    np.testing.assert_array_equal(got_y, y[..., :65])
    np.testing.assert_array_equal(got_state, final_state[:, :65])


@pytest.mark.parametrize("workers", [1, 2, 7])
@pytest.mark.parametrize("in_flight", [1, 2, 5])
def test_rings_that_are_used_again_change_no_bit_however_many_blocks_run(workers, in_flight, emulate, scan_inputs):
    inputs = scan_inputs(1, 24 * CHUNK - 7, 40, 4)
    expected = emulate(inputs, False, workers=1)
    got = emulate(inputs, False, workers=workers, in_flight=in_flight)
    for one, other in zip(got[:2], expected[:2], strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("batch", "length", "channels", "state"),
    [(1, 131_072, 7168, 16), (64, 131_072, 7168, 256), (1, 2**31 * 64 - 64, 64, 1), (2**31 - 1, 64, 64, 256)],
)
def test_the_largest_sizes_overflow_no_index(batch, length, channels, state, library):
    numbers = (ctypes.c_int64 * 7)()
    assert library.plan_scan(*map(ctypes.c_int64, (batch, length, channels, state)), numbers)
    chunks, rows, slots, size, last_chunk, last_row, last_word = numbers
    assert (chunks, rows) == (-(-length // CHUNK), batch * -(-channels // ROW))
    assert (last_chunk, last_row) == (chunks - 1, rows - 1)
    of_a_slot = (1 + state) * ROW
    assert last_word == ((rows - 1) * slots + (chunks - 1) % slots) * of_a_slot
    if chunks > 1:
        assert 0 <= size - 8 * rows * slots * of_a_slot - 4 * rows <= 512


@pytest.mark.parametrize(
    ("batch", "length", "channels"), [(1, 2**31 * 64, 64), (2**31, 64, 64), (64, 2**31, 7168), (1, 64, 2**25)]
)
def test_more_blocks_or_channels_than_a_launch_can_have_are_refused(batch, length, channels, library):
    numbers = (ctypes.c_int64 * 7)()
    assert not library.plan_scan(*map(ctypes.c_int64, (batch, length, channels, 16)), numbers)


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


@pytest.mark.parametrize(("least", "most"), [(-1, 3e-7), (-80, 6e-6)], ids=["near 0", "where the exponent is rounded"])
def test_the_kernels_softplus_is_as_exact_as_float32(least, most, library):
    library.softplus_error.restype = ctypes.c_double
    assert library.softplus_error(ctypes.c_float(least)) < most


def test_softplus_is_linear_above_20_and_never_overflows(assert_softplus_is_linear_above_20, run):
    assert_softplus_is_linear_above_20(run)


@pytest.mark.parametrize("sanitizer", ["thread", "address"])
def test_a_sanitizer_finds_nothing_while_blocks_look_back(sanitizer, tmp_path):
    program = compile_emulation(tmp_path / "emulation", f"-fsanitize={sanitizer}", "-DEMULATION_MAIN", "-g")
    result = subprocess.run([str(program)], check=False, capture_output=True, text=True, timeout=120)
    if "unexpected memory mapping" in result.stderr:
        pytest.skip("this kernel's address randomisation is too much for this compiler's ThreadSanitizer")
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def threads(tmp_path_factory):
    """threads(left_out): blocks with a thread for each of theirs, under ThreadSanitizer; 0 leaves no barrier out."""
    program = tmp_path_factory.mktemp("threads") / "threads"
    compile_emulation(program, "-fsanitize=thread", "-g", source="threads.cpp")

    def run(left_out, *kernel):
        result = subprocess.run(
            [str(program), str(left_out), *kernel],
            check=False,
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "TSAN_OPTIONS": "halt_on_error=1"},
        )
        if "unexpected memory mapping" in result.stderr:
            pytest.skip("this kernel's address randomisation is too much for this compiler's ThreadSanitizer")
        return result

    return run


@pytest.mark.parametrize("kernel", [[], ["16"]], ids=["any number of states", "16 states"])
def test_no_two_threads_of_a_block_meet_in_shared_memory_without_a_barrier_between_them(kernel, threads):
    result = threads(0, *kernel)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("left_out", [1, 2, 3, 4])
def test_a_barrier_that_is_missing_is_found(left_out, threads):
    assert "data race" in threads(left_out).stderr

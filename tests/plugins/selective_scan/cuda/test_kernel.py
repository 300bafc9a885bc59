"""The CUDA kernel on a GPU against the float64 loop; test_emulation.py tests the same algorithm without one."""

import numpy as np
import pytest

from storm_edge.plugins.selective_scan.op import SCHEMA

SIZES = ("batch", "length", "channels", "state")


@pytest.fixture(scope="module")
def run(run_cuda):
    return lambda inputs, dtype, reverse: run_cuda(SCHEMA, "storm_cuda_scan", SIZES, inputs, dtype, reverse)


def test_the_kernel_equals_the_float64_loop(scan_case, assert_scan_correct, run):
    assert_scan_correct(run, scan_case)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(
    ("batch", "length", "channels", "state"),
    [(1, 129, 1, 1), (3, 1000, 65, 17), (1, 300, 32, 256), (1, 8192, 48, 16), (2, 4000, 600, 2)],
)
def test_odd_sizes_and_long_sequences_equal_the_float64_loop(
    dtype, batch, length, channels, state, run, scan_inputs, scan_oracle, assert_close
):
    inputs = scan_inputs(batch, length, channels, state, dtype)
    inputs["C"] /= max(1, state // 16)  # a power of two or 1: still representable
    for reverse in (False, True):
        y, final_state = run(inputs, dtype, reverse)
        expected_y, expected_state = scan_oracle(inputs, reverse)
        assert_close(y, expected_y, dtype)
        assert_close(final_state, expected_state, "float32")


@pytest.mark.parametrize("reverse", [False, True])
def test_scanning_in_pieces_with_carried_states_equals_scanning_at_once(
    reverse, run, scan_inputs, assert_pieces_equal_whole
):
    assert_pieces_equal_whole(run, SCHEMA, scan_inputs(2, 700, 5, 16), (1, 128, 690), reverse)


def test_softplus_is_linear_above_20_and_never_overflows(assert_softplus_is_linear_above_20, run):
    assert_softplus_is_linear_above_20(run)


def test_two_runs_give_the_same_bits(run, scan_inputs):
    inputs = scan_inputs(1, 20_000, 64, 16)
    first, second = (run(inputs, "float32", False) for _ in range(2))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)

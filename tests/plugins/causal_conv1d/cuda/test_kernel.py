"""The CUDA kernel on a GPU against the float64 loop; test_emulation.py tests the same code without one."""

import pytest

from storm_edge.plugins.causal_conv1d.op import SCHEMA

SIZES = ("batch", "length", "channels", "width")


@pytest.fixture(scope="module")
def run(run_cuda):
    return lambda inputs, dtype, reverse: run_cuda(SCHEMA, "storm_cuda_conv", SIZES, inputs, dtype, reverse)


def test_the_kernel_equals_the_float64_loop(conv_case, assert_conv_correct, run):
    assert_conv_correct(run, conv_case)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("width", [2, 3, 4, 5, 9])
def test_any_width_equals_the_float64_loop(dtype, width, run, conv_inputs, conv_oracle, assert_close):
    inputs = conv_inputs(2, 1031, 130, width, dtype)
    for reverse in (False, True):
        for got, expected in zip(run(inputs, dtype, reverse), conv_oracle(inputs, reverse), strict=True):
            assert_close(got, expected, dtype)


@pytest.mark.parametrize("reverse", [False, True])
def test_convolving_in_pieces_with_carried_states_equals_convolving_at_once(
    reverse, run, conv_inputs, assert_pieces_equal_whole
):
    assert_pieces_equal_whole(run, SCHEMA, conv_inputs(2, 700, 5, 4), (1, 3, 128, 699), reverse)

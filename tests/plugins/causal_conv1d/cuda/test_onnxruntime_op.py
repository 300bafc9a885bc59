"""The operator in ONNX Runtime's CUDA provider against the float64 loop; a GPU and onnxruntime-gpu are needed."""

import re

import pytest

from storm_edge.plugins.causal_conv1d.op import SCHEMA


@pytest.fixture(scope="module")
def run(run_cuda_provider):
    return lambda inputs, dtype, reverse: run_cuda_provider(SCHEMA, inputs, dtype, reverse)


def test_the_operator_on_a_gpu_equals_the_float64_loop(conv_case, assert_conv_correct, run):
    assert_conv_correct(run, conv_case)


def test_sizes_that_the_kernel_does_not_take_are_refused_with_the_sizes(conv_inputs, run):
    refusal = "storm::CausalConv1d of batch, length, channels, width [1, 2, 1, 1] failed: cudaErrorInvalidValue"
    with pytest.raises(Exception, match=re.escape(refusal)):
        run(conv_inputs(1, 2, 1, 1), "float32", False)

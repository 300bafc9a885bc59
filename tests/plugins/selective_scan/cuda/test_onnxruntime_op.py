"""The operator in ONNX Runtime's CUDA provider against the float64 loop; a GPU and onnxruntime-gpu are needed."""

import re

import pytest

from storm_edge.plugins.selective_scan.op import SCHEMA


@pytest.fixture(scope="module")
def run(run_cuda_provider):
    return lambda inputs, dtype, reverse: run_cuda_provider(SCHEMA, inputs, dtype, reverse)


def test_the_operator_on_a_gpu_equals_the_float64_loop(scan_case, assert_scan_correct, run):
    assert_scan_correct(run, scan_case)


def test_sizes_that_the_kernel_does_not_take_are_refused_with_the_sizes(scan_inputs, run):
    refusal = "storm::SelectiveScan of batch, length, channels, state [1, 2, 1, 257] failed: cudaErrorInvalidValue"
    with pytest.raises(Exception, match=re.escape(refusal)):
        run(scan_inputs(1, 2, 1, 257), "float32", False)

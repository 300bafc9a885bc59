"""The PyTorch operator on a GPU, where it calls libstorm_cuda.so: against the float64 loop."""

import pytest
import torch

from storm_edge.plugins.causal_conv1d.op import INPUTS
from storm_edge.plugins.causal_conv1d.torch_op import causal_conv1d

if not torch.cuda.is_available():
    pytest.skip("no CUDA device that PyTorch can use: run `make test-gpu` there", allow_module_level=True)


@pytest.fixture(autouse=True)
def native(count_cuda_calls):
    """How often the native kernel has run."""
    return count_cuda_calls("causal_conv1d")


def tensors(inputs, dtype):
    return [torch.from_numpy(inputs[name]).to("cuda", getattr(torch, dtype)) for name in INPUTS]


def run(inputs, dtype, reverse):
    y, final_state = causal_conv1d(*tensors(inputs, dtype), reverse=reverse)
    assert y.device.type == final_state.device.type == "cuda"
    return y.float().cpu().numpy(), final_state.float().cpu().numpy()


def test_the_operator_on_a_gpu_equals_the_float64_loop(conv_case, assert_conv_correct, native):
    assert_conv_correct(run, conv_case)
    assert native


def test_inputs_that_are_not_contiguous_give_the_same(conv_inputs, native):
    given = tensors(conv_inputs(2, 300, 5, 4), "float32")
    strided = [tensor.transpose(0, -1).contiguous().transpose(0, -1) for tensor in given]
    for got, expected in zip(causal_conv1d(*strided), causal_conv1d(*given), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert len(native) == 2

"""The PyTorch operator on a GPU, where it calls libstorm_cuda.so: against the float64 loop and PyTorch's own form."""

import pytest
import torch

from storm_edge.plugins.native_kernels import without_native_kernels
from storm_edge.plugins.selective_scan.op import SCHEMA
from storm_edge.plugins.selective_scan.torch_op import selective_scan

if not torch.cuda.is_available():
    pytest.skip("no CUDA device that PyTorch can use: run `make test-gpu` there", allow_module_level=True)


@pytest.fixture(autouse=True)
def native(count_cuda_calls):
    """How often the native kernel has run."""
    return count_cuda_calls("selective_scan")


def tensors(inputs, dtype):
    types = {"T": getattr(torch, dtype), "float32": torch.float32}
    return [torch.from_numpy(inputs[v.name]).to("cuda", types[v.type]) for v in SCHEMA.inputs]


def run(inputs, dtype, reverse):
    y, final_state = selective_scan(*tensors(inputs, dtype), reverse=reverse)
    assert (y.device.type, y.dtype, final_state.dtype) == ("cuda", getattr(torch, dtype), torch.float32)
    return y.float().cpu().numpy(), final_state.cpu().numpy()


def test_the_operator_on_a_gpu_equals_the_float64_loop(scan_case, assert_scan_correct, native):
    assert_scan_correct(run, scan_case)
    assert native


@pytest.mark.parametrize("reverse", [False, True])
def test_long_sequences_equal_pytorchs_own_form(reverse, scan_inputs, native):
    given = tensors(scan_inputs(2, 3000, 70, 16), "float32")
    got = selective_scan(*given, reverse=reverse)
    with without_native_kernels():
        expected = selective_scan(*given, reverse=reverse)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
    assert len(native) == 1


def test_inputs_that_are_not_contiguous_give_the_same(scan_inputs, native):
    given = tensors(scan_inputs(2, 300, 5, 4), "float32")
    strided = [tensor.transpose(0, -1).contiguous().transpose(0, -1) for tensor in given]
    for got, expected in zip(selective_scan(*strided), selective_scan(*given), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    assert len(native) == 2


def test_it_runs_on_the_current_stream_and_inside_a_cuda_graph(scan_inputs, native):
    given = tensors(scan_inputs(1, 1000, 40, 16), "float32")
    expected = selective_scan(*given)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = selective_scan(*given)
    for _ in range(3):  # every replay clears its workspace again
        for tensor in captured:
            tensor.fill_(float("nan"))
        graph.replay()
        torch.testing.assert_close(captured, expected, rtol=0, atol=0)


def test_inputs_on_two_devices_are_refused_by_name(scan_inputs):
    given = tensors(scan_inputs(1, 8, 4, 4), "float32")
    given[2] = given[2].cpu()
    with pytest.raises(ValueError, match="storm::SelectiveScan: A must be on cuda:0 like u, got cpu"):
        selective_scan(*given)

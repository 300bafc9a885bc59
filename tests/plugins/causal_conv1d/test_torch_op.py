import pytest
import torch

from storm_edge.plugins.causal_conv1d.op import INPUTS, SCHEMA
from storm_edge.plugins.causal_conv1d.torch_op import causal_conv1d
from storm_edge.plugins.cpu_kernels import cpu_kernels


@pytest.fixture(params=["plain", "native"], autouse=True)
def form(request, monkeypatch):
    """Every test runs without and with the native kernels."""
    if request.param == "plain":
        monkeypatch.setenv("STORM_PLUGIN_PATH", "")
    elif cpu_kernels() is None:
        pytest.skip("libstorm_cpu.so is not built: run `make plugin`")


def tensors(inputs, dtype):
    return [torch.from_numpy(inputs[name]).to(getattr(torch, dtype)) for name in INPUTS]


def run(inputs, dtype, reverse):
    y, final_state = causal_conv1d(*tensors(inputs, dtype), reverse=reverse)
    assert y.dtype == final_state.dtype == getattr(torch, dtype)
    return y.float().numpy(), final_state.float().numpy()


def test_the_torch_operator_equals_the_float64_loop(conv_case, assert_conv_correct):
    assert_conv_correct(run, conv_case)


@pytest.mark.parametrize("reverse", [False, True])
def test_convolving_in_pieces_with_carried_states_equals_convolving_at_once(
    reverse, conv_inputs, assert_pieces_equal_whole
):
    assert_pieces_equal_whole(run, SCHEMA, conv_inputs(2, 64, 5, 4), (1, 3, 20, 63), reverse)


def test_the_outputs_are_no_views_of_the_inputs(conv_inputs):
    given = tensors(conv_inputs(1, 8, 3, 4), "float32")
    _, final_state = causal_conv1d(*given)
    final_state.zero_()
    assert given[0][:, -3:].abs().min() > 0


def test_inputs_that_are_not_contiguous_give_the_same(conv_inputs):
    given = tensors(conv_inputs(2, 8, 3, 4), "float32")
    strided = [tensor.transpose(0, -1).contiguous().transpose(0, -1) for tensor in given]
    for got, expected in zip(causal_conv1d(*strided), causal_conv1d(*given), strict=True):
        torch.testing.assert_close(got, expected)


def test_the_registered_operator_keeps_pytorchs_contract(conv_inputs):
    torch.library.opcheck(
        torch.ops.storm.causal_conv1d,
        (*tensors(conv_inputs(2, 3, 5, 4), "float16"), True),
        test_utils=("test_schema", "test_faketensor"),
    )


def test_a_wrong_shape_is_refused_by_name(conv_inputs):
    given = tensors(conv_inputs(1, 8, 3, 4), "float32")
    given[3] = given[3][:, :2]
    with pytest.raises(
        ValueError, match=r"storm::CausalConv1d: initial_state \[.*\] must have .*\[1, 3, 3\], got \[1, 2, 3"
    ):
        causal_conv1d(*given)


def test_a_wrong_type_is_refused_by_name(conv_inputs):
    given = tensors(conv_inputs(1, 8, 3, 4), "float32")
    given[1] = given[1].bfloat16()
    with pytest.raises(TypeError, match="storm::CausalConv1d: weight must be float32 like x, got bfloat16"):
        causal_conv1d(*given)


def test_inputs_on_two_devices_are_refused_by_name(conv_inputs):
    given = tensors(conv_inputs(1, 8, 3, 4), "float32")
    given[2] = given[2].to("meta")
    with pytest.raises(ValueError, match="storm::CausalConv1d: bias must be on cpu like x, got meta"):
        causal_conv1d(*given)

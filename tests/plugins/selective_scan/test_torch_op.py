import pytest
import torch

from storm_edge.plugins.cpu_kernels import cpu_kernels
from storm_edge.plugins.selective_scan.op import INPUTS, SCHEMA
from storm_edge.plugins.selective_scan.torch_op import selective_scan


@pytest.fixture(params=["plain", "native"], autouse=True)
def form(request, monkeypatch):
    """Every test runs without and with the native kernels."""
    if request.param == "plain":
        monkeypatch.setenv("STORM_PLUGIN_PATH", "")
    elif cpu_kernels() is None:
        pytest.skip("libstorm_cpu.so is not built: run `make plugin`")


def tensors(inputs, dtype):
    types = {value.name: dtype if value.type == "T" else value.type for value in SCHEMA.inputs}
    return [torch.from_numpy(inputs[name]).to(getattr(torch, types[name])) for name in INPUTS]


def run(inputs, dtype, reverse):
    y, final_state = selective_scan(*tensors(inputs, dtype), reverse=reverse)
    assert y.dtype == getattr(torch, dtype)
    assert final_state.dtype == torch.float32
    return y.float().numpy(), final_state.numpy()


def test_the_torch_operator_equals_the_float64_loop(scan_case, assert_scan_correct):
    assert_scan_correct(run, scan_case)


@pytest.mark.parametrize("reverse", [False, True])
def test_scanning_in_pieces_with_carried_states_equals_scanning_at_once(
    reverse, scan_inputs, assert_pieces_equal_whole
):
    assert_pieces_equal_whole(run, SCHEMA, scan_inputs(2, 64, 5, 16), (1, 20, 63), reverse)


def test_softplus_is_linear_above_20_and_never_overflows(assert_softplus_is_linear_above_20):
    assert_softplus_is_linear_above_20(run)


def test_the_inputs_are_left_as_they_were(scan_inputs):
    given = tensors(scan_inputs(1, 8, 3, 4), "float32")
    before = [tensor.clone() for tensor in given]
    selective_scan(*given)
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True))


def test_inputs_that_are_not_contiguous_give_the_same(scan_inputs):
    given = tensors(scan_inputs(2, 8, 3, 4), "float32")
    strided = [tensor.transpose(0, -1).contiguous().transpose(0, -1) for tensor in given]
    for got, expected in zip(selective_scan(*strided), selective_scan(*given), strict=True):
        torch.testing.assert_close(got, expected)


def test_the_registered_operator_keeps_pytorchs_contract(scan_inputs):
    torch.library.opcheck(
        torch.ops.storm.selective_scan,
        (*tensors(scan_inputs(2, 3, 5, 4), "float16"), True),
        test_utils=("test_schema", "test_faketensor"),
    )


def test_a_wrong_shape_is_refused_by_name(scan_inputs):
    given = tensors(scan_inputs(1, 8, 3, 4), "float32")
    given[3] = given[3][:, :7]
    with pytest.raises(ValueError, match=r"storm::SelectiveScan: B \[batch, length, state\] must have .*\[1, 7, 4\]"):
        selective_scan(*given)


def test_a_wrong_type_is_refused_by_name(scan_inputs):
    given = tensors(scan_inputs(1, 8, 3, 4), "float32")
    given[6] = given[6].half()
    with pytest.raises(TypeError, match="storm::SelectiveScan: z must be float32 like u, got float16"):
        selective_scan(*given)


def test_inputs_on_two_devices_are_refused_by_name(scan_inputs):
    given = tensors(scan_inputs(1, 8, 3, 4), "float32")
    given[3] = given[3].to("meta")
    with pytest.raises(ValueError, match="storm::SelectiveScan: B must be on cpu like u, got meta"):
        selective_scan(*given)

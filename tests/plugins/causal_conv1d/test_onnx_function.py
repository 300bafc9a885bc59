import numpy as np
import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from storm_edge.plugins.causal_conv1d.onnx_function import causal_conv1d_function
from storm_edge.plugins.causal_conv1d.op import SCHEMA


@pytest.fixture(scope="module")
def run(one_node_model, run_onnxruntime):
    def in_onnxruntime(inputs, dtype, reverse):
        width = inputs["weight"].shape[1]
        return run_onnxruntime(one_node_model(SCHEMA, dtype, reverse, [causal_conv1d_function(width)]), inputs)

    return in_onnxruntime


def test_the_function_equals_the_float64_loop_in_onnxruntime(conv_case, assert_conv_correct, run):
    assert_conv_correct(run, conv_case)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("length", [1, 2, 17])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_function_equals_the_float64_loop_in_onnxs_own_evaluator(
    dtype, length, reverse, conv_inputs, conv_oracle, assert_close, one_node_model
):
    inputs = conv_inputs(2, length, 5, 4, dtype)
    evaluator = ReferenceEvaluator(one_node_model(SCHEMA, dtype, reverse, [causal_conv1d_function(4)]))
    for got, expected in zip(evaluator.run(None, inputs), conv_oracle(inputs, reverse), strict=True):
        assert_close(got, expected, dtype)


@pytest.mark.parametrize("reverse", [False, True])
def test_convolving_in_pieces_with_carried_states_equals_convolving_at_once(
    reverse, conv_inputs, assert_pieces_equal_whole, run
):
    assert_pieces_equal_whole(run, SCHEMA, conv_inputs(2, 64, 5, 4), (1, 3, 20, 63), reverse)


def test_silu_keeps_its_precision_where_it_is_nearly_closed(conv_inputs, conv_oracle, run):
    inputs = conv_inputs(1, 1, 10_001, 2)
    inputs["bias"][:] = np.linspace(-80.0, 20.0, 10_001, dtype=np.float32)
    inputs["weight"][:] = 0.0
    np.testing.assert_allclose(run(inputs, "float32", False)[0], conv_oracle(inputs, False)[0], rtol=1e-6)


@pytest.mark.parametrize("opset", [20, 24])
def test_a_model_of_either_opset_passes_the_checker_and_runs(
    opset, conv_inputs, conv_oracle, assert_close, one_node_model, run_onnxruntime
):
    model = one_node_model(SCHEMA, "float16", True, [causal_conv1d_function(4, opset)], opset)
    onnx.checker.check_model(model, full_check=True)
    inputs = conv_inputs(1, 9, 3, 4, "float16")
    assert_close(run_onnxruntime(model, inputs)[0], conv_oracle(inputs, True)[0], "float16")


def test_a_width_without_a_state_is_refused():
    with pytest.raises(ValueError, match="storm::CausalConv1d: width must be at least 2, got 1"):
        causal_conv1d_function(1)

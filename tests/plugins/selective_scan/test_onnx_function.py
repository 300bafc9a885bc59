import onnx
import pytest
from onnx.reference import ReferenceEvaluator

from storm_edge.plugins.selective_scan.onnx_function import selective_scan_function
from storm_edge.plugins.selective_scan.op import SCHEMA


@pytest.fixture(scope="module")
def run(one_node_model, run_onnxruntime):
    def in_onnxruntime(inputs, dtype, reverse):
        model = one_node_model(SCHEMA, dtype, reverse, [selective_scan_function()])
        return run_onnxruntime(model, inputs)

    return in_onnxruntime


def test_the_function_equals_the_float64_loop_in_onnxruntime(scan_case, assert_scan_correct, run):
    assert_scan_correct(run, scan_case)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("length", [1, 17])
@pytest.mark.parametrize("reverse", [False, True])
def test_the_function_equals_the_float64_loop_in_onnxs_own_evaluator(
    dtype, length, reverse, scan_inputs, scan_oracle, assert_close, one_node_model
):
    inputs = scan_inputs(2, length, 5, 4, dtype)
    evaluator = ReferenceEvaluator(one_node_model(SCHEMA, dtype, reverse, [selective_scan_function()]))
    y, final_state = evaluator.run(None, inputs)
    expected_y, expected_state = scan_oracle(inputs, reverse)
    assert_close(y, expected_y, dtype)
    assert_close(final_state, expected_state, "float32")


@pytest.mark.parametrize("reverse", [False, True])
def test_scanning_in_pieces_with_carried_states_equals_scanning_at_once(
    reverse, scan_inputs, assert_pieces_equal_whole, run
):
    assert_pieces_equal_whole(run, SCHEMA, scan_inputs(2, 64, 5, 16), (1, 20, 63), reverse)


def test_softplus_is_linear_above_20_and_never_overflows(assert_softplus_is_linear_above_20, run):
    assert_softplus_is_linear_above_20(run)


def test_the_gate_keeps_its_precision_where_it_is_nearly_closed(assert_gate_keeps_its_precision, run):
    assert_gate_keeps_its_precision(run)


def test_small_steps_keep_their_precision(assert_small_steps_keep_their_precision, run):
    assert_small_steps_keep_their_precision(run)


def test_decays_are_within_the_bound_that_the_readme_states(assert_decays_are_within_the_stated_bound, run):
    assert_decays_are_within_the_stated_bound(run)


@pytest.mark.parametrize("opset", [20, 24])
def test_a_model_of_either_opset_passes_the_checker_and_runs(
    opset, scan_inputs, scan_oracle, assert_close, one_node_model, run_onnxruntime
):
    model = one_node_model(SCHEMA, "float16", True, [selective_scan_function(opset)], opset)
    onnx.checker.check_model(model, full_check=True)
    inputs = scan_inputs(1, 9, 3, 4, "float16")
    assert_close(run_onnxruntime(model, inputs)[0], scan_oracle(inputs, True)[0], "float16")

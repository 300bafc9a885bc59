import numpy as np
import onnxruntime
import pytest

from storm_edge.plugins.selective_scan.onnx_function import selective_scan_function
from storm_edge.plugins.selective_scan.op import SCHEMA


@pytest.fixture(scope="module")
def run(native_operators, one_node_model, run_onnxruntime):
    def in_onnxruntime(inputs, dtype, reverse, threads=2):
        # Without a function in the model nothing but the native operator can run it.
        return run_onnxruntime(one_node_model(SCHEMA, dtype, reverse), inputs, native_operators(threads))

    return in_onnxruntime


def test_the_native_operator_equals_the_float64_loop(scan_case, assert_scan_correct, run):
    assert_scan_correct(run, scan_case)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("channels", "state"), [(1, 1), (17, 3), (40, 64), (3, 256)])
def test_any_number_of_channels_and_states_up_to_256(
    channels, state, reverse, scan_inputs, scan_oracle, assert_close, run
):
    inputs = scan_inputs(1, 70, channels, state)
    for got, expected in zip(run(inputs, "float32", reverse), scan_oracle(inputs, reverse), strict=True):
        assert_close(got, expected, "float32")


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


def test_the_threads_of_a_session_change_no_bit(scan_inputs, run):
    inputs = scan_inputs(2, 300, 100, 16)
    once, *others = (run(inputs, "float32", True, threads) for threads in (1, 2, 4))
    for other in others:
        assert all(np.array_equal(a, b) for a, b in zip(once, other, strict=True))


def test_a_model_with_the_function_runs_the_native_operator(
    scan_inputs, native_operators, one_node_model, run_onnxruntime
):
    model = one_node_model(SCHEMA, "float32", False, [selective_scan_function()])
    native = one_node_model(SCHEMA, "float32", False)
    inputs = scan_inputs(1, 200, 33, 16)
    y, y_native = (run_onnxruntime(m, inputs, native_operators())[0] for m in (model, native))
    assert np.array_equal(y, y_native)
    assert not np.array_equal(y, run_onnxruntime(model, inputs)[0])  # rounded elsewhere: it is another form


@pytest.mark.parametrize("reverse", [False, True])
def test_131072_tokens(reverse, run):
    length, channels, state = 131072, 16, 4
    normal = np.random.default_rng(0).standard_normal
    inputs = {
        "u": normal((1, length, channels)),
        "delta": normal((1, length, channels)),
        "A": -np.ones((channels, state)) * np.arange(1, state + 1),
        "B": normal((1, length, state)),
        "C": normal((1, length, state)),
        "D": normal(channels),
        "z": normal((1, length, channels)),
        "delta_bias": np.full(channels, -4.0),
        "initial_state": normal((1, channels, state)),
    }
    inputs = {name: array.astype(np.float32) for name, array in inputs.items()}
    y, final_state = run(inputs, "float32", reverse)
    assert np.isfinite(y).all()
    # 8192 tokens at the scan's end have forgotten what came before them.
    end = slice(0, 8192) if reverse else slice(-8192, None)
    tail = {name: array[:, end] if name in ("u", "delta", "B", "C", "z") else array for name, array in inputs.items()}
    tail_y, tail_state = run(tail, "float32", reverse)
    last = slice(0, 100) if reverse else slice(-100, None)
    np.testing.assert_allclose(y[:, last], tail_y[:, last], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(final_state, tail_state, rtol=1e-5, atol=1e-6)


def test_a_wrong_shape_is_refused_by_name(scan_inputs, run):
    inputs = scan_inputs(1, 8, 3, 4)
    inputs["B"] = inputs["B"][:, :7].copy()
    with pytest.raises(onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument) as refusal:
        run(inputs, "float32", False)
    assert "storm::SelectiveScan: B [batch, length, state] must have shape [1, 8, 4], got [1, 7, 4]" in str(
        refusal.value
    )


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((1, 2, 1, 257), "state must be 1 to 256, got 257"),
        ((1, 2, 1, 0), "A .* must have state of at least 1"),
        ((0, 2, 1, 4), "u .* must have batch of at least 1"),
        ((1, 0, 1, 4), "u .* must have length of at least 1"),
        ((1, 2, 0, 4), "u .* must have channels of at least 1"),
    ],
)
def test_sizes_that_the_kernel_does_not_take_are_refused(sizes, words, scan_inputs, run):
    with pytest.raises(Exception, match=f"storm::SelectiveScan: {words}"):
        run(scan_inputs(*sizes), "float32", False)

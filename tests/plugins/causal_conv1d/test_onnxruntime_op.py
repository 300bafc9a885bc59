import pytest

from storm_edge.plugins.causal_conv1d.op import SCHEMA


@pytest.fixture(scope="module")
def run(native_operators, one_node_model, run_onnxruntime):
    def in_onnxruntime(inputs, dtype, reverse):
        return run_onnxruntime(one_node_model(SCHEMA, dtype, reverse), inputs, native_operators())

    return in_onnxruntime


def test_the_native_operator_equals_the_float64_loop(conv_case, assert_conv_correct, run):
    assert_conv_correct(run, conv_case)


@pytest.mark.parametrize("reverse", [False, True])
def test_convolving_in_pieces_with_carried_states_equals_convolving_at_once(
    reverse, conv_inputs, assert_pieces_equal_whole, run
):
    assert_pieces_equal_whole(run, SCHEMA, conv_inputs(2, 64, 5, 4), (1, 3, 20, 63), reverse)


@pytest.mark.parametrize("width", [3, 9, 256])
def test_any_width_up_to_256(width, conv_inputs, conv_oracle, assert_close, run):
    inputs = conv_inputs(1, 300, 20, width)
    for got, expected in zip(run(inputs, "float32", True), conv_oracle(inputs, True), strict=True):
        assert_close(got, expected, "float32")


@pytest.mark.parametrize(
    ("sizes", "words"),
    [
        ((1, 2, 1, 257), "width must be 2 to 256, got 257"),
        ((1, 2, 1, 1), "weight .* must have width of at least 2"),
        ((0, 2, 1, 4), "x .* must have batch of at least 1"),
        ((1, 0, 1, 4), "x .* must have length of at least 1"),
        ((1, 2, 0, 4), "x .* must have channels of at least 1"),
    ],
)
def test_sizes_that_the_kernel_does_not_take_are_refused(sizes, words, conv_inputs, run):
    with pytest.raises(Exception, match=f"storm::CausalConv1d: {words}"):
        run(conv_inputs(*sizes), "float32", False)


def test_a_wrong_shape_is_refused_by_name(conv_inputs, run):
    inputs = conv_inputs(1, 8, 3, 4)
    inputs["initial_state"] = inputs["initial_state"][:, :2].copy()
    with pytest.raises(Exception, match=r"initial_state \[batch, width-1, channels\] must have shape \[1, 3, 3\], got"):
        run(inputs, "float32", False)

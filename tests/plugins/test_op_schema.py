import ctypes
import subprocess
import sys

import pytest

from storm_edge.plugins import libraries
from storm_edge.plugins.causal_conv1d import op as causal_conv1d
from storm_edge.plugins.selective_scan import op as selective_scan

CONV_SHAPES = {"x": (2, 9, 5), "weight": (5, 4), "bias": (5,), "initial_state": (2, 3, 5)}
SCAN_TYPES = {value.name: "bfloat16" if value.type == "T" else "float32" for value in selective_scan.SCHEMA.inputs}


def test_the_binary_interface_of_version_1_is_this():
    assert selective_scan.INPUTS == ("u", "delta", "A", "B", "C", "D", "z", "delta_bias", "initial_state")
    assert causal_conv1d.INPUTS == ("x", "weight", "bias", "initial_state")
    for op in (selective_scan, causal_conv1d):
        assert op.OUTPUTS == ("y", "final_state")
        assert (op.DOMAIN, op.VERSION) == ("storm", 1)
        assert op.SCHEMA.attributes(reverse=True) == {"reverse": 1, "plugin_version": "1", "plugin_namespace": "storm"}


def test_right_shapes_give_the_sizes_of_the_axes():
    assert causal_conv1d.check_shapes(CONV_SHAPES) == {"batch": 2, "length": 9, "channels": 5, "width": 4}


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("x", (9, 5), r"x \[batch, length, channels\] must have 3 axes, got shape \[9, 5\]"),
        ("x", (2, 0, 5), r"x \[batch, length, channels\] must have length of at least 1, got shape \[2, 0, 5\]"),
        ("weight", (6, 4), r"weight \[channels, width\] must have shape \[5, width\], got \[6, 4\]"),
        ("weight", (5, 1), r"weight \[channels, width\] must have width of at least 2, got shape \[5, 1\]"),
        ("bias", (4,), r"bias \[channels\] must have shape \[5\], got \[4\]"),
        ("initial_state", (2, 4, 5), r"initial_state \[.*\] must have shape \[2, 3, 5\], got \[2, 4, 5\]"),
    ],
)
def test_a_wrong_shape_is_named_with_what_was_expected_and_what_came(name, shape, message):
    with pytest.raises(ValueError, match=f"^storm::CausalConv1d: {message}$"):
        causal_conv1d.check_shapes({**CONV_SHAPES, name: shape})


def test_right_types_give_t():
    assert selective_scan.check_types(SCAN_TYPES) == "bfloat16"


@pytest.mark.parametrize(
    ("name", "dtype", "message"),
    [
        ("u", "float64", "u must be one of float32, float16, bfloat16, got float64"),
        ("B", "float16", "B must be bfloat16 like u, got float16"),
        ("A", "bfloat16", "A must be float32, got bfloat16"),
    ],
)
def test_a_wrong_type_is_named_with_what_was_expected_and_what_came(name, dtype, message):
    with pytest.raises(TypeError, match=f"^storm::SelectiveScan: {message}$"):
        selective_scan.check_types({**SCAN_TYPES, name: dtype})


def test_the_schemas_need_nothing_but_the_standard_library():
    code = (
        "import sys; import storm_edge.plugins.selective_scan.op, storm_edge.plugins.causal_conv1d.op; "
        "sys.exit(bool({'torch', 'onnx', 'numpy', 'storm_edge.runtime'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def said_by(schema):
    """What op.py says, a line for each thing, as the libraries answer (plugins/common/schema.cpp)."""
    lines = [f"operator {schema.qualified_name} {schema.version}"]
    for kind, values in (("input", schema.inputs), ("output", schema.outputs)):
        lines += [" ".join((kind, value.name, value.type, *value.axes)) for value in values]
    lines += [f"minimum {axis} {size}" for axis, size in schema.minimum.items()]
    for name, value in schema.attributes(reverse=False).items():
        lines.append(f"attribute {name} {'0 1' if name == 'reverse' else value}")
    return lines


@pytest.mark.parametrize(
    ("library", "function"),
    [
        (libraries.CPU, "storm_schemas"),
        (libraries.ONNXRUNTIME, "storm_schemas"),
        (libraries.CUDA, "storm_cuda_schemas"),
        (libraries.TENSORRT, "storm_schemas"),
    ],
)
def test_a_built_library_says_of_its_operators_what_the_schemas_say(library, function, built):
    ask = getattr(ctypes.CDLL(str(built(library))), function)
    ask.restype = ctypes.c_char_p
    expected = [*said_by(selective_scan.SCHEMA), *said_by(causal_conv1d.SCHEMA)]
    assert ask().decode().splitlines() == expected

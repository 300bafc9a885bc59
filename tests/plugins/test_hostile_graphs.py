"""Graphs in which a native operator does not fit its inputs, run by ONNX Runtime in a process of their own.

Each ends in an ordinary error, in op.py's words where the operator itself speaks, and never in the end of the process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from storm_edge.plugins import libraries
from storm_edge.plugins.causal_conv1d.op import SCHEMA as CONV
from storm_edge.plugins.op_schema import Schema
from storm_edge.plugins.selective_scan.op import SCHEMA as SCAN

WORKER = Path(__file__).parents[1] / "fuzz" / "operator_worker.py"
SIZES = {"batch": 2, "length": 3, "channels": 5, "state": 4, "width": 4}


def sound(schema: Schema) -> dict[str, Any]:
    """A graph in which everything fits."""

    def size(axis: str) -> int:
        name, _, less = axis.partition("-")
        return SIZES[name] - int(less or 0)

    return {
        "op": schema.name,
        "inputs": [{"name": v.name, "type": "float32", "shape": [size(a) for a in v.axes]} for v in schema.inputs],
        "outputs": [value.name for value in schema.outputs],
        "attributes": schema.attributes(reverse=False),
        "declared": "nothing",
        "run": True,
    }


def refusal(schema: Schema, case: dict[str, Any]) -> str:
    """What op.py says of the inputs."""
    inputs = {value["name"]: value for value in case["inputs"]}
    try:
        schema.check_types({name: value["type"] for name, value in inputs.items()})
        schema.check_shapes({name: value["shape"] for name, value in inputs.items()})
    except (TypeError, ValueError) as e:
        return str(e)
    raise AssertionError("the case is sound")


def with_input(schema: Schema, name: str, **changes: Any) -> dict[str, Any]:
    """A sound graph but for one input."""
    case = sound(schema)
    next(value for value in case["inputs"] if value["name"] == name).update(changes)
    return case


def misfits() -> Iterator[tuple[str, dict[str, Any], str]]:
    """Inputs of wrong types and shapes, known when the graph is loaded or not: (what, case, words)."""
    for schema, name, shape in (
        (SCAN, "u", [6, 5]),
        (SCAN, "u", []),
        (SCAN, "u", [2, 0, 5]),
        (SCAN, "u", [0, 3, 5]),
        (SCAN, "delta", [2, 3, 6]),
        (SCAN, "A", [5]),
        (SCAN, "A", [5, 0]),
        (SCAN, "A", [6, 4]),
        (SCAN, "B", [2, 2, 4]),
        (SCAN, "C", [2, 3, 400]),
        (SCAN, "D", [1]),
        (SCAN, "D", [5, 1]),
        (SCAN, "z", [1, 3, 5]),
        (SCAN, "delta_bias", [0]),
        (SCAN, "initial_state", [3, 5, 4]),
        (SCAN, "initial_state", [2, 5, 4, 1]),
        (CONV, "x", [2, 3]),
        (CONV, "x", [2, 3, 0]),
        (CONV, "weight", [5, 0]),
        (CONV, "weight", [5, 1]),
        (CONV, "weight", [5, 70000]),
        (CONV, "weight", [4, 5]),
        (CONV, "bias", [4]),
        (CONV, "bias", []),
        (CONV, "initial_state", [2, 4, 5]),
        (CONV, "initial_state", [2, 0, 5]),
        (CONV, "initial_state", [2, 3, 5, 1]),
    ):
        case = with_input(schema, name, shape=shape)
        yield f"{schema.name} {name} {shape}", case, refusal(schema, case)
    for schema, name, dtype in (
        (SCAN, "delta", "float16"),
        (SCAN, "A", "bfloat16"),
        (SCAN, "z", "float64"),
        (SCAN, "initial_state", "float16"),
        (CONV, "weight", "bfloat16"),
        (CONV, "initial_state", "float64"),
    ):
        case = with_input(schema, name, type=dtype)
        yield f"{schema.name} {name} {dtype}", case, refusal(schema, case)
    for name, dtype in (("B", "int64"), ("D", "bool"), ("C", "string")):
        words = f"storm::SelectiveScan: {name} must be float32"
        yield f"SelectiveScan {name} {dtype}", with_input(SCAN, name, type=dtype), words


def others() -> Iterator[tuple[str, dict[str, Any], str]]:
    """Everything else that a node can get wrong."""
    for schema in (SCAN, CONV):
        case, count = sound(schema), len(schema.inputs)
        for kept in (0, 1, count - 1):
            few = {**case, "inputs": case["inputs"][:kept]}
            yield f"{schema.name} {kept} inputs", few, f"input size {kept} not in range [min={count}, max={count}]"
        many = {**case, "inputs": [*case["inputs"], case["inputs"][0]]}
        yield f"{schema.name} too many inputs", many, f"input size {count + 1} not in range"
        for gap in (0, count - 1):
            left_out = {**case, "inputs": [None if i == gap else value for i, value in enumerate(case["inputs"])]}
            words = f"input {gap} is marked single but has an empty string"
            yield f"{schema.name} input {gap} left out", left_out, words
        for outputs in (["y"], ["y", "final_state", "z"], ["", "final_state"], ["y", ""]):
            yield f"{schema.name} outputs {outputs}", {**case, "outputs": outputs}, "output"
        attributes = case["attributes"]
        for name in attributes:
            wrong = {key: value for key, value in attributes.items() if key != name}
            yield f"{schema.name} no {name}", {**case, "attributes": wrong}, f"needs the attribute {name}"
        for name, value in (
            ("reverse", 2),
            ("reverse", -1),
            ("reverse", 1 << 62),
            ("reverse", "1"),
            ("reverse", 1.0),
            ("reverse", [0, 1]),
            ("plugin_version", "2"),
            ("plugin_version", 1),
            ("plugin_version", ""),
            ("plugin_version", "1" * 5000),
            ("plugin_namespace", "other"),
        ):
            wrong = {**attributes, name: value}
            label = f"{schema.name} {name} = {str(value)[:20]!r} {type(value).__name__}"
            yield label, {**case, "attributes": wrong}, f"storm::{schema.name}: needs the attribute {name}"
    yield "u float64", with_input(SCAN, "u", type="float64"), "input parameter (u_0)"
    yield "u sequence", with_input(SCAN, "u", type="sequence"), "input parameter (u_0)"
    yield "B sequence", with_input(SCAN, "B", type="sequence"), "input parameter (B_3)"
    most = with_input(CONV, "weight", shape=[5, 257])
    most["inputs"][3]["shape"] = [2, 256, 5]
    yield "width 257", most, "storm::CausalConv1d: width must be 2 to 256, got 257"
    huge = {**sound(SCAN), "declared": "shape", "run": False}
    for value in huge["inputs"]:
        axes = next(v.axes for v in SCAN.inputs if v.name == value["name"])
        value["shape"] = [1 << 40 if axis in ("length", "batch") else 4 for axis in axes]
    yield "2^82 elements", huge, "storm::SelectiveScan: u [batch, length, channels] must have fewer elements, got shape"
    edge = with_input(SCAN, "u", shape=[(1 << 63) - 1] * 3) | {"declared": "shape", "run": False}
    yield "the largest sizes", edge, "must have fewer elements"
    edge = with_input(CONV, "weight", shape=[5, (1 << 63) - 1]) | {"declared": "shape", "run": False}
    yield "the largest width", edge, "must have fewer elements"


def cases() -> dict[str, tuple[dict[str, Any], str, str]]:
    """By what is wrong: the case, where the error must come, its words."""
    found = {}
    for what, case, words in misfits():
        found[f"{what}, known at load"] = ({**case, "declared": "shape"}, "load", words)
        found[f"{what}, known at run"] = (case, "load" if " must be " in words else "run", words)
    # A scalar looks like a shape that is not known.
    for what, (case, _, words) in found.items():
        if "[]" in what:
            found[what] = (case, "run", words)
    for what, case, words in others():
        found[what] = (case, "run" if what == "width 257" else "load", words)
    return found


CASES = cases()


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, str]]:
    """How every case ended; those after one that ended the process have none."""
    if libraries.find_library(libraries.ONNXRUNTIME) is None:
        pytest.skip(f"{libraries.ONNXRUNTIME} is not built: run `make plugin`, which says what it lacks")
    given = {"everything fits": (sound(SCAN), "", ""), "all fits": (sound(CONV), "", "")} | CASES
    lines = "".join(json.dumps(case) + "\n" for case, _, _ in given.values())
    done = subprocess.run([sys.executable, str(WORKER)], input=lines, capture_output=True, text=True, timeout=300)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    ended = [{"outcome": f"exit status {done.returncode}", "words": done.stderr}] if len(answers) < len(given) else []
    return dict(zip(given, answers + ended, strict=False))


@pytest.mark.parametrize("what", ["everything fits", "all fits"])
def test_a_sound_graph_gives_an_answer(what: str, results: dict[str, dict[str, str]]) -> None:
    assert results[what] == {"outcome": "answer", "words": ""}


@pytest.mark.parametrize("what", CASES)
def test_a_graph_that_does_not_fit_ends_in_an_error_that_says_what(
    what: str, results: dict[str, dict[str, str]]
) -> None:
    assert what in results, "the process had ended before"
    _, where, words = CASES[what]
    assert results[what]["outcome"] == where, results[what]["words"]
    assert words in results[what]["words"]

"""libstorm_tensorrt.so driven through TensorRT's plugin interface by harness.cpp, without a TensorRT library."""

import subprocess

import pytest

from storm_edge.plugins import libraries

CHECKS = {
    "creators": "both creators carry their name, version and namespace and ask for `reverse`",
    "attributes": "reverse is read from 32 and 64 bits, and refused by name where it is wrong or missing",
    "types": "outputs have T or float32, and a missing input is refused",
    "formats": "float32, float16 and bfloat16 are taken, linear and not mixed, and nothing else",
    "shapes": "output shapes are those of the inputs, whatever their sizes",
    "disagreeing shapes": "shapes that disagree are refused by name, when building and when running",
    "workspace": "the workspace is small, does not grow with the length and never shrinks with the batch",
    "serialization": "a plugin from an engine equals the one that was built; another plugin version says: rebuild",
    "CUDA errors": "a launch that fails is told with the name of the CUDA error",
    "enqueue": "outputs on the GPU equal the float64 loop in all types and both directions",
}


@pytest.fixture(scope="module")
def report(built):
    """What the harness says of each check: "ok", or "skipped" or "failed" and why."""
    command = [str(built("storm_tensorrt_harness")), str(built(libraries.TENSORRT))]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=300)
    lines = {}
    for line in result.stdout.splitlines():
        outcome, _, rest = line.partition(" ")
        name, _, why = rest.partition(": ")
        lines[name] = (outcome, why)
    assert lines, f"the harness ended with {result.returncode}: {result.stderr}"
    return lines


@pytest.mark.parametrize("name", CHECKS, ids=list(CHECKS.values()))
def test_harness(name, report):
    outcome, why = report[name]
    if outcome == "skipped":
        pytest.skip(why)
    assert outcome == "ok", why


def test_the_harness_knows_no_check_that_is_not_listed_here(report):
    assert set(report) == set(CHECKS)


def test_the_library_shows_its_own_functions_only_and_needs_no_tensorrt(built):
    path = str(built(libraries.TENSORRT))
    symbols = subprocess.run(["nm", "-D", "--defined-only", path], check=True, capture_output=True, text=True).stdout
    assert {line.split()[-1] for line in symbols.splitlines()} == {
        "getCreators",
        "setLoggerFinder",
        "storm_schemas",
        "storm_tensorrt_major",
    }
    needed = subprocess.run(["ldd", path], check=True, capture_output=True, text=True).stdout
    assert "nvinfer" not in needed
    assert "libcudart" not in needed

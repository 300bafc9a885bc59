"""The kernels' own test program (kernels_test.cpp), which `make test-sanitize` runs under the sanitizers as well."""

import subprocess

import pytest

from storm_edge.plugins.libraries import find_library


def test_the_kernels_of_every_instruction_set_here_pass_their_own_tests() -> None:
    program = find_library("storm_cpu_test")
    if program is None:
        pytest.skip("storm_cpu_test is not built: run `make plugin`")
    result = subprocess.run([program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr

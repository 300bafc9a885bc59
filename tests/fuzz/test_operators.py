"""A slice of what `make fuzz` does to the native operators: the part that needs no sanitizers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from storm_edge.plugins import libraries

OPERATORS = Path(__file__).with_name("operators.py")


def test_random_graphs_with_native_operators_never_end_the_process() -> None:
    if libraries.find_library(libraries.ONNXRUNTIME) is None:
        pytest.skip(f"{libraries.ONNXRUNTIME} is not built: run `make plugin`, which says what it lacks")
    command = [sys.executable, str(OPERATORS), "--only", "graphs", "--cases", "400"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("graphs: 400 cases: ")
    for outcome in ("answer", "load", "run"):
        assert f" {outcome}" in done.stdout

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.machine.packages import import_onnxruntime, import_tensorrt, installed_tensorrt

# A graph that is none, and one whose run fails: ONNX Runtime logs both by itself.
FAILING = """
import sys
import numpy as np
import onnx
from onnx import TensorProto, helper
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.sessions.onnxruntime import OnnxRuntimeSession

path = sys.argv[1]
x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n"]) for name in "xy")
shape = helper.make_tensor("shape", TensorProto.INT64, [1], [7])
graph = helper.make_graph([helper.make_node("Reshape", ["x", "shape"], ["y"])], "g", [x], [y], [shape])
onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
try:
    OnnxRuntimeSession(path).run(x=np.zeros(3, np.float32))
except EngineError as error:
    print(error)
with open(path, "wb") as file:
    file.write(b"\\x08\\x08 no graph")
try:
    OnnxRuntimeSession(path)
except EngineError as error:
    print(error)
"""


def test_what_is_not_installed_is_named_with_how_to_get_it() -> None:
    with pytest.raises(EngineError, match="is not installed: pip install"):
        import_tensorrt("tensorrt_of_nobody")
    assert installed_tensorrt("tensorrt_of_nobody") is None


def test_onnx_runtime_says_what_fails_in_the_error_only(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FAILING, str(tmp_path / "g.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 2
    assert "failed to run" in done.stdout
    assert "cannot load" in done.stdout


def test_onnx_runtime_is_there_in_these_tests() -> None:
    assert import_onnxruntime().__version__

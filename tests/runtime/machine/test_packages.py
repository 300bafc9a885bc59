from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.bundle.engine import read_engine
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.machine import packages
from storm_edge.runtime.machine.packages import import_onnxruntime, import_tensorrt, installed, require_package
from storm_edge.runtime.runners import RUNNERS

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
    assert installed("tensorrt_of_nobody") is None


def test_onnx_runtime_says_what_fails_in_the_error_only(tmp_path: Path) -> None:
    command = [sys.executable, "-c", FAILING, str(tmp_path / "g.onnx")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert len(done.stdout.splitlines()) == 2
    assert "failed to run" in done.stdout
    assert "cannot load" in done.stdout


def test_onnx_runtime_is_there_in_these_tests() -> None:
    assert import_onnxruntime().__version__


@pytest.mark.parametrize("runner", list(RUNNERS))
def test_a_package_older_than_its_runner_takes_is_refused_with_both_versions(
    runner: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = RUNNERS[runner]
    major, minor = map(int, row.oldest.split("."))
    older = f"{major}.{minor - 1}.9" if minor else f"{major - 1}.99.9"
    monkeypatch.setattr(packages.importlib.metadata, "version", lambda _: older)
    with pytest.raises(EngineError, match=rf"{row.package} {older} is installed.* from {row.oldest} on.*pip install"):
        require_package(runner)
    monkeypatch.setattr(packages.importlib.metadata, "version", lambda _: f"{row.oldest}.0")
    assert require_package(runner) == f"{row.oldest}.0"


def test_an_engine_is_not_loaded_on_an_older_package(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = Bundle.open(bundle)
    monkeypatch.setattr(import_onnxruntime(), "__version__", "1.20.1")
    with pytest.raises(EngineError, match=r"onnxruntime 1\.20\.1 is installed.* ONNX Runtime from 1\.22 on: pip"):
        Stages.load(opened, read_engine(opened, "cpu-fp32"))


@pytest.mark.parametrize("package", ["tensorrt", "tensorrt_rtx"])
def test_a_tensorrt_older_than_its_runner_takes_is_not_used(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, SimpleNamespace(__version__="1.6.0"))
    with pytest.raises(EngineError, match=rf"{package} 1\.6\.0 is installed, and engines are for TensorRT"):
        import_tensorrt(package)

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from storm_edge.plugins import libraries
from storm_edge.runtime.machine.doctor import operator_facts
from storm_edge.runtime.machine.native import OPERATORS, native_forms

ALL = ("CPU kernels", "CUDA kernels", "ONNX Runtime", "TensorRT")


def test_what_is_not_built_is_said_with_the_command_that_builds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORM_PLUGIN_PATH", "")
    facts = operator_facts()
    assert {facts[words] for words in ALL} == {"not built: make plugin"}
    assert all(facts[name] == "ONNX function, PyTorch" for name in OPERATORS)


def test_libraries_that_are_built_are_loaded_and_their_operators_named() -> None:
    forms = {form.words: form for form in native_forms() if form.library}
    if not forms:
        pytest.skip("no library is built: run `make plugin`")
    for form in forms.values():
        assert "loads" in form.detail
        assert set(form.operators) == set(OPERATORS)
        assert form.state.startswith(str(form.library))
    assert all(words in operator_facts()["SelectiveScan"] for words in forms)


def test_a_library_that_does_not_load_says_why_and_is_no_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (libraries.CPU, libraries.CUDA, libraries.ONNXRUNTIME, libraries.TENSORRT):
        (tmp_path / name).write_bytes(b"no library")
    monkeypatch.setenv("STORM_PLUGIN_PATH", str(tmp_path))
    facts = operator_facts()
    for words in ("CPU kernels", "CUDA kernels", "ONNX Runtime"):
        assert facts[words].startswith(f"does not load: {tmp_path}")
        assert "file too short" in facts[words]
        assert facts[words].endswith("repeat make plugin")
        assert words not in facts["SelectiveScan"]
    assert "cannot be loaded" in facts["TensorRT"] or "TensorRT is not installed" in facts["TensorRT"]


def test_a_library_that_ends_its_process_leaves_doctor_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler: apt-get install g++")
    source = tmp_path / "abort.cpp"
    source.write_text("#include <cstdlib>\nstatic int ended = (std::abort(), 0);\n")
    library = tmp_path / libraries.CPU
    subprocess.run([compiler, "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setenv("STORM_PLUGIN_PATH", str(tmp_path))
    assert "it ends the process by SIGABRT" in operator_facts()["CPU kernels"]


def test_a_library_of_another_kind_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built = libraries.find_library(libraries.ONNXRUNTIME)
    if built is None:
        pytest.skip(f"{libraries.ONNXRUNTIME} is not built: run `make plugin`")
    shutil.copy(built, tmp_path / libraries.CPU)
    monkeypatch.setenv("STORM_PLUGIN_PATH", str(tmp_path))
    assert "undefined symbol: storm_instruction_set" in operator_facts()["CPU kernels"]

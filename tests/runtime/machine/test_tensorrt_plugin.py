from __future__ import annotations

import ctypes
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from storm_edge.plugins import libraries
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.machine.tensorrt_plugin import load_plugin

PLUGIN = Path("libstorm_tensorrt.so")


def refusal(*given: Any) -> str:
    """What load_plugin says, which is one line."""
    with pytest.raises(EngineError) as e:
        load_plugin(*given)
    assert "\n" not in str(e.value)
    return str(e.value)


def made_for(major: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every library have been compiled against the headers of a version."""
    monkeypatch.setattr(ctypes, "CDLL", lambda path: SimpleNamespace(storm_tensorrt_major=lambda: major))


def test_a_library_is_loaded_once(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made_for(10, monkeypatch)
    import tensorrt

    for _ in range(2):
        load_plugin(tensorrt, "tensorrt", PLUGIN)
    assert machine.tensorrt.libraries == [str(PLUGIN)]


@pytest.mark.parametrize(
    ("major", "version", "taken"), [(10, "10.3.0", True), (10, "11.4.1", False), (11, "10.16", False)]
)
def test_headers_of_another_major_version_are_refused_before_tensorrt_sees_the_library(
    major: int, version: str, taken: bool, machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_for(major, monkeypatch)
    import tensorrt

    monkeypatch.setattr(tensorrt, "__version__", version)
    if taken:
        load_plugin(tensorrt, "tensorrt", PLUGIN)
    else:
        said = refusal(tensorrt, "tensorrt", PLUGIN)
        assert f"made for TensorRT {major}, and tensorrt {version}" in said
        assert "set TENSORRT_ROOT to a TensorRT" in said
    assert machine.tensorrt.libraries == [str(PLUGIN)] * taken


def test_tensorrt_for_rtx_takes_what_is_made_for_11(machine: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorrt_rtx

    made_for(10, monkeypatch)
    assert "has the interface of 11" in refusal(tensorrt_rtx, "tensorrt_rtx", PLUGIN)
    made_for(11, monkeypatch)
    load_plugin(tensorrt_rtx, "tensorrt_rtx", PLUGIN)
    assert machine.tensorrt.libraries == [str(PLUGIN)]


def test_a_library_that_tensorrt_refuses_names_the_command_that_builds_it_and_is_tried_again(
    machine: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    made_for(10, monkeypatch)
    import tensorrt

    machine.tensorrt.libraries.append(str(PLUGIN))  # somebody else's copy is there
    assert "cannot load the operators in libstorm_tensorrt.so: run `" in refusal(tensorrt, "tensorrt", PLUGIN)
    machine.tensorrt.libraries.clear()
    load_plugin(tensorrt, "tensorrt", PLUGIN)


def test_what_is_no_library_and_what_cannot_say_what_it_is_made_for_are_refused(machine: Any, tmp_path: Path) -> None:
    import tensorrt

    (tmp_path / "broken.so").write_bytes(b"no library")
    assert "file too short" in refusal(tensorrt, "tensorrt", tmp_path / "broken.so")
    older = libraries.find_library(libraries.CPU)
    if older is None:
        pytest.skip("no library is built: run `make plugin`")
    assert "undefined symbol: storm_tensorrt_major" in refusal(tensorrt, "tensorrt", older)
    assert machine.tensorrt.libraries == []

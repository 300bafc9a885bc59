from pathlib import Path

import pytest

from storm_edge.plugins import libraries
from storm_edge.plugins.cpu_kernels import cpu_kernels
from storm_edge.plugins.native_kernels import without_native_kernels


def test_the_plugin_path_stands_in_for_all_other_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "b").mkdir()
    library = tmp_path / "b" / libraries.ONNXRUNTIME
    library.touch()
    monkeypatch.setenv("STORM_PLUGIN_PATH", f"{tmp_path / 'a'}:{tmp_path / 'b'}")
    assert libraries.find_library(libraries.ONNXRUNTIME) == library
    assert libraries.find_library("libstorm_other.so") is None


def test_an_empty_plugin_path_switches_native_forms_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORM_PLUGIN_PATH", "")
    assert libraries.find_library(libraries.ONNXRUNTIME) is None


@pytest.mark.parametrize("checkout", [True, False])
def test_libraries_are_looked_for_where_they_are_built_to(
    checkout: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STORM_PLUGIN_PATH", raising=False)
    monkeypatch.setattr(libraries, "_HERE", tmp_path / "plugins")
    if checkout:
        (tmp_path / "pyproject.toml").touch()
    folder = tmp_path / "build" / "plugins" if checkout else tmp_path / "plugins" / "lib"
    assert libraries.find_library(libraries.ONNXRUNTIME) is None
    folder.mkdir(parents=True)
    (folder / libraries.ONNXRUNTIME).touch()
    assert libraries.find_library(libraries.ONNXRUNTIME) == folder / libraries.ONNXRUNTIME


def test_the_native_kernels_can_be_switched_off_for_what_they_are_verified_against() -> None:
    kernels = cpu_kernels()
    with without_native_kernels():
        assert cpu_kernels() is None
    assert cpu_kernels() is kernels

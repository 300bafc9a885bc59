from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from storm_edge.plugins import build as module
from storm_edge.plugins import libraries
from storm_edge.plugins.build import build, cuda_flags, jobs
from storm_edge.plugins.gpus import Gpu

GIB = 1 << 30


@pytest.mark.parametrize(
    ("cores", "memory", "chosen", "expected"),
    [(12, 64 * GIB, None, 12), (6, 8 * GIB, None, 4), (6, GIB, None, 1), (6, 8 * GIB, "1", 1), (2, 8 * GIB, "x", 2)],
)
def test_no_more_compilers_run_at_once_than_cores_and_memory_allow(
    cores: int, memory: int, chosen: str | None, expected: int
) -> None:
    assert jobs(cores, memory, chosen) == expected


def test_cuda_forms_are_built_where_there_is_a_compiler_for_the_gpus_that_are_here() -> None:
    assert cuda_flags(None, [87]) == []
    assert "-DSTORM_CUDA_ARCHITECTURES=87" in cuda_flags("/usr/local/cuda/bin/nvcc", [87])
    assert "-DSTORM_CUDA_ARCHITECTURES=80;89" in cuda_flags("nvcc", [80, 89])
    assert {"-DSTORM_CUDA=ON", "-DSTORM_TENSORRT=AUTO", "-DSTORM_CUDA_ARCHITECTURES=80"} <= set(cuda_flags("nvcc", []))


def test_every_kind_of_gpu_that_is_here_is_compiled_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = (Gpu("H100", 90), Gpu("L4", 89), Gpu("H100", 90), Gpu("unknown", None))
    monkeypatch.setattr(module, "find_gpus", lambda: gpus)
    assert module.gpu_sms() == [89, 90]


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [("CXX", "no-such-compiler", "there is no C++ compiler: apt-get install g++"), ("PATH", "", "there is no CMake")],
)
def test_missing_tools_are_one_line_that_says_what_to_install(
    variable: str,
    value: str,
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("PATH", module.os.environ["PATH"])  # restored afterwards: the build adds to it
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(module.sysconfig, "get_path", lambda _: "/nowhere" if variable == "PATH" else "")
    assert build(tmp_path / "lib", []) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"error: {words}")
    assert error.count("\n") == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert build(tmp_path / "file" / "lib", []) == 1
    assert f"error: {tmp_path / 'file' / 'lib'} cannot be written" in capsys.readouterr().err


def test_a_word_that_is_no_definition_is_refused() -> None:
    command = [sys.executable, "-m", "storm_edge.plugins.build", "fast"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "fast is no definition for CMake: give -DNAME=VALUE" in done.stderr


def test_the_command_that_messages_name_is_the_one_for_this_kind_of_installation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert libraries.build_command() == "make plugin"
    monkeypatch.setattr(libraries, "_HERE", tmp_path)
    assert libraries.build_command() == "python -m storm_edge.plugins.build"
    assert libraries.build_folder() == tmp_path / "lib"

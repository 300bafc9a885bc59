"""What a user installs: the wheel's contents, and a runtime without the export packages."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import numpy as np
import pytest

from storm_edge.plugins.cpu_kernels import CpuKernels
from storm_edge.runtime.machine.matrix import REPORTS, seen_on_gpus, support_matrix
from storm_edge.runtime.video.encode import encode_video

ROOT = Path(__file__).parent.parent
FOLDERS = ("plugins", "runtime", "export", "calibration", "demo", "server", "batch", "cli")


SOURCES = (".c", ".cmake", ".cpp", ".cu", ".cuh", ".h", ".map", ".sh", "CMakeLists.txt")
DISTRIBUTE = """
import sys
from setuptools import build_meta
print()
print(build_meta.build_sdist(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source, because setuptools leaves a build folder in it."""
    folder = tmp_path_factory.mktemp("source")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    files = [f for f in listed.stdout.splitlines() if (ROOT / f).is_file()]
    assert files
    for name in files:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, by way of the source distribution."""
    folder = tmp_path_factory.mktemp("wheel")
    made = subprocess.run(
        [sys.executable, "-c", DISTRIBUTE, folder], cwd=source, capture_output=True, text=True, check=True
    )
    sdist = folder / made.stdout.splitlines()[-1]
    options = ["--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, "-w", folder, sdist], check=True)
    (wheel,) = folder.glob("*.whl")
    return wheel


def test_the_wheel_holds_every_module_and_the_operators_sources(source: Path, wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    files = [path.relative_to(source) for folder in FOLDERS for path in (source / folder).rglob("*")]
    modules = {f"storm_edge/{f}" for f in files if f.name.endswith((".py", "py.typed", ".html"))}
    sources = {f"storm_edge/{f}" for f in files if f.parts[0] == "plugins" and f.name.endswith(SOURCES)}
    assert len(sources) > 50
    assert (modules | sources) - held == set()


def test_an_installed_package_builds_its_own_operators(wheel: Path, tmp_path: Path) -> None:
    if shutil.which("c++") is None:
        pytest.skip("there is no C++ compiler: apt-get install g++")
    zipfile.ZipFile(wheel).extractall(tmp_path)
    # Without site, so that the checkout's own installation cannot be found.
    command = [sys.executable, "-S", "-m", "storm_edge.plugins.build"]
    environment = os.environ | {
        "PYTHONPATH": str(tmp_path),
        "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}",
    }
    switches = ["-DSTORM_CUDA=OFF", "-DSTORM_TENSORRT=OFF", "-DSTORM_ONNXRUNTIME=OFF", "-DCMAKE_BUILD_TYPE=Debug"]
    done = subprocess.run([*command, *switches], env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    library = tmp_path / "storm_edge" / "plugins" / "lib" / "libstorm_cpu.so"
    assert f"built: {library}" in done.stdout
    assert "not built: " in done.stdout
    assert CpuKernels(library).instruction_set


WITHOUT = """
import sys
for name in ("torch", "transformers", "onnx", "onnxscript"):
    sys.modules[name] = None  # importing it now raises ImportError
from storm_edge.cli import main
sys.argv = ["storm", *sys.argv[1:]]
main()
"""


@pytest.mark.parametrize("verb", ["run", "verify", "inspect", "doctor"])
def test_the_runtime_works_without_torch_transformers_and_onnx(verb: str, bundle: Path, tmp_path: Path) -> None:
    arguments = {
        "run": [bundle, tmp_path / "a.mp4", "Which way?"],
        "verify": [bundle],
        "inspect": [bundle],
        "doctor": [],
    }
    if verb == "run":
        encode_video(tmp_path / "a.mp4", np.zeros((16, 64, 64, 3), dtype=np.uint8))
    command = [sys.executable, "-c", WITHOUT, verb, *map(str, arguments[verb])]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_readme_has_the_support_matrix_of_the_target_table_and_the_gpus_reports() -> None:
    assert support_matrix(seen_on_gpus(ROOT / REPORTS)) in (ROOT / "README.md").read_text(encoding="utf-8")

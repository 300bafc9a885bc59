"""What `make` does to an environment, with a stand-in for its Python that writes down what it is asked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYTHON = """#!/bin/sh
case "$2" in
  *CUDAExecutionProvider*) exit {no_cuda} ;;
  *version_info\\[:2\\]*) echo {version} ;;
esac
[ "$2" = pip ] && echo "$*" >> asked
exit 0
"""


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
@pytest.mark.parametrize("version", ["3.10", "3.11"])
@pytest.mark.parametrize("no_cuda", [0, 1])
def test_setup_leaves_a_cuda_build_of_onnx_runtime_alone(version: str, no_cuda: int, tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt", "constraints-jp62.txt"):
        shutil.copy(ROOT / name, tmp_path)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(PYTHON.format(no_cuda=no_cuda, version=version))
    python.chmod(0o755)
    subprocess.run(["make", "setup", f"PYTHON={python}"], cwd=tmp_path, check=True, capture_output=True)
    extras = (tmp_path / "asked").read_text().rpartition("[")[2].rstrip("]\n").split(",")
    assert ("jetson" in extras) == (version == "3.10")
    assert ("cpu" in extras) == bool(no_cuda)

import os
import shutil
import subprocess

import pytest

TOOL = shutil.which("compute-sanitizer") or shutil.which("compute-sanitizer", path="/usr/local/cuda/bin")


@pytest.mark.parametrize("tool", ["memcheck", "racecheck", "initcheck", "synccheck"])
def test_compute_sanitizer_finds_nothing_in_the_kernels(tool, built, cuda_kernels):
    if TOOL is None:
        pytest.skip("no compute-sanitizer: it comes with the CUDA toolkit")
    command = [TOOL, "--tool", tool, "--error-exitcode", "9", os.fspath(built("storm_cuda_check"))]
    result = subprocess.run(command, check=False, capture_output=True, text=True, timeout=1800)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-4000:]

"""The launchers with a CUDA runtime of our own in place of NVIDIA's (launch.cpp): no GPU, but nvcc."""

import subprocess
from pathlib import Path

import pytest

from storm_edge.plugins.build import find_nvcc

HERE = Path(__file__).parent
PLUGINS = HERE.parents[2] / "plugins"
NO_KERNEL_IMAGE = 209  # cudaErrorNoKernelImageForDevice


def test_a_launch_tells_its_own_error_and_none_that_somebody_left_behind(tmp_path):
    nvcc = find_nvcc()
    if nvcc is None:
        pytest.skip("there is no nvcc: install the CUDA toolkit")
    sources = [HERE / "launch.cpp", PLUGINS / "causal_conv1d" / "cuda" / "float32.cu"]
    flags = ["-std=c++17", f"-I{PLUGINS}", "-arch=sm_80", "--cudart=none", "-o", tmp_path / "launch"]
    subprocess.run([nvcc, *flags, *sources], check=True)
    told = subprocess.run([tmp_path / "launch"], check=True, capture_output=True, text=True).stdout
    assert told == f"2 0 {NO_KERNEL_IMAGE}"

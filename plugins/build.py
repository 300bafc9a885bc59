"""Build the operators' native libraries: `python -m storm_edge.plugins.build` (standard library only).

In a source checkout they go to build/plugins with the programs that test them (`make plugin` runs this), from an
installed package into its lib/ folder. CUDA and TensorRT forms are built where nvcc is.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

from storm_edge.plugins import libraries
from storm_edge.plugins.gpus import find_gpus

SOURCE = Path(__file__).resolve().parent
LIBRARIES = (libraries.CPU, libraries.CUDA, libraries.ONNXRUNTIME, libraries.TENSORRT)
FALLBACK_SM = 80  # where there is no GPU to ask: its code runs on every 8.x and its PTX on all that is newer
_JOB_BYTES = 2 << 30  # of memory for one compiler; nvcc needs most of it


def gpu_sms() -> list[int]:
    """The compute capabilities x 10 of this machine's GPUs, each once."""
    return sorted({gpu.sm for gpu in find_gpus() if gpu.sm})


def find_nvcc() -> str | None:
    """The CUDA compiler: on the PATH, or where the toolkit's packages put it."""
    return shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")


def cuda_flags(nvcc: str | None, sms: list[int]) -> list[str]:
    """CMake's definitions for the CUDA and TensorRT forms; none where there is no compiler for them."""
    if nvcc is None:
        return []
    architectures = ";".join(map(str, sms or [FALLBACK_SM]))
    return [
        "-DSTORM_CUDA=ON",
        "-DSTORM_TENSORRT=AUTO",
        f"-DCMAKE_CUDA_COMPILER={nvcc}",
        f"-DSTORM_CUDA_ARCHITECTURES={architectures}",
    ]


def jobs(cores: int, memory: int, chosen: str | None) -> int:
    """Compilers at once: CMAKE_BUILD_PARALLEL_LEVEL, or as many as cores and memory (bytes) allow."""
    return int(chosen) if chosen and chosen.isdigit() else max(1, min(cores, memory // _JOB_BYTES))


def build(output: Path, definitions: list[str]) -> int:
    """Configure, compile, and put the libraries into `output`; returns the exit status. Later definitions win."""
    scripts = sysconfig.get_path("scripts")
    os.environ["PATH"] = os.pathsep.join([scripts, os.environ.get("PATH", "")])
    lacking = [
        f"there is no {what}: {advice}"
        for what, tool, advice in (
            ("CMake", "cmake", "pip install cmake ninja, or apt-get install cmake"),
            ("C++ compiler", os.environ.get("CXX", "c++"), "apt-get install g++, or name one with CXX="),
        )
        if not shutil.which(tool)
    ]
    if lacking:
        return _fail(lacking[0])
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        return _fail(f"{output} cannot be written ({e.strerror}): name another folder with --output")
    if not os.access(output, os.W_OK):
        return _fail(f"{output} cannot be written: name another folder with --output")
    with tempfile.TemporaryDirectory() as scratch:
        # A checkout keeps its build folder, so that only what changed is compiled again.
        folder = output if libraries.in_checkout() else Path(scratch)
        generator = [] if shutil.which("make") else ["-G", "Ninja"]
        tests = [f"-DSTORM_TESTS={'ON' if libraries.in_checkout() else 'OFF'}"]
        flags = [*tests, *cuda_flags(find_nvcc(), gpu_sms()), *definitions]
        parallel = str(jobs(os.cpu_count() or 1, _memory(), os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL")))
        for command in (
            ["cmake", "-S", str(SOURCE), "-B", str(folder), *generator, *flags],
            ["cmake", "--build", str(folder), "--parallel", parallel],
        ):
            code = subprocess.run(command, check=False).returncode
            if code:
                return _fail(f"`{' '.join(command[:2])}` ended with exit status {code}: its messages are above")
        if folder != output:
            for library in folder.glob("libstorm_*.so"):
                shutil.copy2(library, output / library.name)
    for name in LIBRARIES:
        print(f"{'built' if (output / name).is_file() else 'not built'}: {output / name}", flush=True)
    return 0


def _fail(message: str) -> int:
    print(f"error: {message}.", file=sys.stderr)
    return 1


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def main() -> int:
    """Run the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m storm_edge.plugins.build",
        description="Build the operators as native code: CPU, ONNX Runtime, and CUDA and TensorRT where nvcc is.",
    )
    parser.add_argument("--output", type=Path, help=f"folder for the libraries; default: {libraries.build_folder()}")
    parser.add_argument(
        "definitions",
        nargs="*",
        metavar="-DNAME=VALUE",
        help="for CMake, e.g. -DSTORM_CUDA=OFF, -DTENSORRT_ROOT=/opt/TensorRT, -DONNXRUNTIME_ROOT=/opt/onnxruntime,"
        " -DSTORM_CUDA_ARCHITECTURES=87",
    )
    given, others = parser.parse_known_args()
    definitions = [*given.definitions, *others]
    wrong = [word for word in definitions if not word.startswith("-D")]
    if wrong:
        parser.error(f"{' '.join(wrong)} is no definition for CMake: give -DNAME=VALUE")
    return build((given.output or libraries.build_folder()).absolute(), definitions)


if __name__ == "__main__":
    sys.exit(main())

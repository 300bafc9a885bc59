"""Whether the operators' native libraries load. Each is tried in a process of its own, which a broken one may end:

    python -m storm_edge.runtime.machine.native cpu|cuda|onnxruntime|tensorrt LIBRARY

prints {"operators", "detail"} as JSON, or fails with the reason as the last line on stderr.
"""

from __future__ import annotations

import importlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storm_edge.plugins import libraries
from storm_edge.plugins.causal_conv1d import op as causal_conv1d
from storm_edge.plugins.cpu_kernels import CpuKernels
from storm_edge.plugins.cuda_kernels import CudaKernels
from storm_edge.plugins.libraries import build_command, find_library
from storm_edge.plugins.selective_scan import op as selective_scan
from storm_edge.runtime.machine.packages import import_onnxruntime
from storm_edge.runtime.machine.tensorrt_plugin import load_plugin

OPERATORS = (selective_scan.NAME, causal_conv1d.NAME)
TIME_LIMIT = 60.0  # seconds; importing TensorRT from a slow disk takes some


@dataclass(frozen=True)
class Form:
    """One native form of the operators: its library, where that is, what loading it gave."""

    words: str
    library: Path | None
    operators: tuple[str, ...] = ()
    detail: str = ""
    error: str = ""

    @property
    def state(self) -> str:
        """One line for `storm doctor`."""
        if self.library is None:
            return f"not built: {build_command()}"
        if self.error:
            return f"does not load: {self.library} ({self.error}): repeat {build_command()}"
        return f"{self.library} ({self.detail})"


def native_forms() -> list[Form]:
    """The CPU and CUDA kernels, the ONNX Runtime operators and the TensorRT plugins, each tried where it is built."""
    kinds = (
        ("cpu", "CPU kernels", libraries.CPU),
        ("cuda", "CUDA kernels", libraries.CUDA),
        ("onnxruntime", "ONNX Runtime", libraries.ONNXRUNTIME),
        ("tensorrt", "TensorRT", libraries.TENSORRT),
    )
    return [_tried(kind, words, find_library(name)) for kind, words, name in kinds]


def _tried(kind: str, words: str, library: Path | None) -> Form:
    if library is None:
        return Form(words, None)
    command = [sys.executable, "-m", "storm_edge.runtime.machine.native", kind, str(library)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIME_LIMIT, check=False)
    except subprocess.TimeoutExpired:
        return Form(words, library, error=f"no answer within {TIME_LIMIT:.0f} seconds")
    if done.returncode == 0:
        found = json.loads(done.stdout.splitlines()[-1])
        return Form(words, library, tuple(found["operators"]), found["detail"])
    if done.returncode < 0:
        return Form(words, library, error=f"it ends the process by {signal.Signals(-done.returncode).name}")
    return Form(words, library, error=(done.stderr.strip().splitlines() or ["no reason given"])[-1])


def _load_cpu(path: Path) -> tuple[list[str], str]:
    kernels = CpuKernels(path)
    return list(OPERATORS), f"loads, {kernels.instruction_set}"


def _load_cuda(path: Path) -> tuple[list[str], str]:
    CudaKernels(path)
    return list(OPERATORS), "loads"


def _load_onnxruntime(path: Path) -> tuple[list[str], str]:
    ort = import_onnxruntime()
    ort.SessionOptions().register_custom_ops_library(str(path))
    return list(OPERATORS), f"loads in ONNX Runtime {ort.__version__}"


def _load_tensorrt(path: Path) -> tuple[list[str], str]:
    for api in ("tensorrt", "tensorrt_rtx"):
        try:
            trt: Any = importlib.import_module(api)
        except ImportError:
            continue
        registry = trt.Builder(trt.Logger(trt.Logger.ERROR)).get_plugin_registry()
        load_plugin(trt, api, path)
        found = [c.name for c in registry.all_creators if c.plugin_namespace == selective_scan.DOMAIN]
        return found, f"loads in {api} {trt.__version__}"
    return [], "not tried: TensorRT is not installed"


_LOADERS: dict[str, Callable[[Path], tuple[list[str], str]]] = {
    "cpu": _load_cpu,
    "cuda": _load_cuda,
    "onnxruntime": _load_onnxruntime,
    "tensorrt": _load_tensorrt,
}


def main() -> None:
    """Load the library named on the command line."""
    try:
        operators, detail = _LOADERS[sys.argv[1]](Path(sys.argv[2]))
    # ONNX Runtime's exceptions share no base of their own; a library without our functions is an AttributeError.
    except Exception as e:
        sys.exit(" ".join(str(e).split()))
    print(json.dumps({"operators": operators, "detail": detail}))


if __name__ == "__main__":
    main()

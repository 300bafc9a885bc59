"""The package tensorrt_llm on this machine: whether it is there, and of the line that compiles engines."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.machine import packages
from storm_edge.runtime.machine.packages import installed
from storm_edge.runtime.runners import RUNNERS, line_of

RUNNER = "tensorrt-llm"
PACKAGE, PAST = RUNNERS[RUNNER].package, RUNNERS[RUNNER].past
NEEDED = "1.2.1"


def require_package() -> str:
    """Its version; raises EngineError where it is missing, older than 1.2, or of the lines without compiled engines."""
    version = installed(PACKAGE)
    if version is not None and line_of(version) >= line_of(PAST):
        others = " or ".join(f"--llm {name}" for name in ("vllm", "tensorrt") if name in RUNNERS)
        raise EngineError(
            f"{PACKAGE} {version} has no compiled engines any more, its engine path was removed with {PAST}: install"
            f" {PACKAGE}=={NEEDED} in an environment of its own, or build with {others}."
        )
    return packages.require_package(RUNNER)


def executor_bindings() -> Any:
    """The bindings of its C++ Executor; raises EngineError where they cannot be loaded."""
    require_package()
    try:
        return importlib.import_module(f"{PACKAGE}.bindings.executor")
    except (ImportError, OSError, RuntimeError) as e:
        raise EngineError(
            f"{PACKAGE} cannot be loaded ({' '.join(str(e).split())}): its CUDA driver, MPI and TensorRT must be"
            f" those of {NEEDED}; see `storm doctor`."
        ) from e


def worker_program() -> Path:
    """The program that runs a rank of an engine for several GPUs; raises EngineError where it is missing."""
    package = importlib.import_module(PACKAGE)
    path = Path(str(package.__file__)).parent / "bin" / "executorWorker"
    if not path.is_file():
        raise EngineError(
            f"{path} is missing, which runs an engine on several GPUs: install {PACKAGE}=={NEEDED} again."
        )
    return path

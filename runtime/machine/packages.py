"""The packages that run engines: importing them, and which are installed."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
from typing import Any

from storm_edge.runtime.errors import EngineError

FATAL = 4  # ONNX Runtime's severity of what it may log: every error is an exception too, whose text says the same


def import_onnxruntime() -> Any:
    """The onnxruntime module; raises EngineError that names the extra to install."""
    # From 1.32 on, importing it starts telemetry, which writes into the home and the temporary folder.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        ort: Any = importlib.import_module("onnxruntime")
    except ImportError as e:
        raise EngineError("ONNX Runtime is not installed: pip install 'storm-edge[cpu]'.") from e
    ort.set_default_logger_severity(FATAL)
    return ort


def has_cuda() -> bool:
    """Whether the installed ONNX Runtime runs graphs in CUDA; raises EngineError where there is none."""
    return "CUDAExecutionProvider" in import_onnxruntime().get_available_providers()


def import_tensorrt(api: str) -> Any:
    """The TensorRT module called `api`; raises EngineError naming what to install."""
    return _import_for_gpu(api, "rtx" if api == "tensorrt_rtx" else "tensorrt")


def import_cupy() -> Any:
    """CuPy, which holds tensors on a GPU; raises EngineError naming what to install."""
    return _import_for_gpu("cupy", "tensorrt")


def _import_for_gpu(name: str, extra: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as e:
        raise EngineError(
            f"{e.name or name} is not installed: pip install 'storm-edge[{extra}]'; on a Jetson TensorRT is JetPack's,"
            " seen from a virtual environment made with --system-site-packages."
        ) from e


def import_polygraphy(part: str, *, rtx: bool = False) -> Any:
    """A module of Polygraphy, "comparator" for instance; with `rtx` it drives TensorRT for RTX. Raises EngineError."""
    try:
        config: Any = importlib.import_module("polygraphy.config")
        config.USE_TENSORRT_RTX = config.USE_TENSORRT_RTX or rtx  # before its TensorRT part is imported
        return importlib.import_module(f"polygraphy.{part}")
    except ImportError as e:
        raise EngineError(f"{e.name} is not installed: pip install 'storm-edge[debug]'.") from e


def installed_tensorrt(api: str) -> str | None:
    """The version of the Python package `api`, "tensorrt" or "tensorrt_rtx", whichever wheel or JetPack brought it."""
    for name in (api, f"{api}_cu13", f"{api}_cu12"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None

"""The packages that run engines: importing them, and which are installed."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
import os
from typing import Any

from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.runners import RUNNERS, line_of

CUDA_PROVIDER = "CUDAExecutionProvider"
FATAL = 4  # ONNX Runtime's severity of what it may log: every error is an exception too, whose text says the same


def import_onnxruntime(extra: str = "cpu") -> Any:
    """The onnxruntime module; raises EngineError, naming the `extra` to install, where it is missing or too old."""
    # From 1.32 on, importing it starts telemetry, which writes into the home and the temporary folder.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    try:
        ort: Any = importlib.import_module("onnxruntime")
    except ImportError as e:
        raise EngineError(f"ONNX Runtime is not installed: pip install 'storm-edge[{extra}]'.") from e
    _require_taken("onnxruntime", ort.__version__)
    ort.set_default_logger_severity(FATAL)
    return ort


def import_onnxruntime_cuda(oldest: str = "") -> Any:
    """The onnxruntime module of a build with CUDA, whose libraries are loaded if wheels brought them.

    Raises EngineError where it is missing, has no CUDA, or is older than `oldest`.
    """
    ort = import_onnxruntime("cuda")
    if CUDA_PROVIDER not in ort.get_available_providers():
        raise EngineError(
            f"the ONNX Runtime {ort.__version__} that is installed has no CUDA: pip uninstall onnxruntime, which shares"
            " its folder, then pip install --force-reinstall 'storm-edge[cuda]' (JetPack 6.2: docs/jetson.md, or --llm"
            " onnxruntime-cpu)."
        )
    if line_of(ort.__version__) < line_of(oldest):
        raise EngineError(
            f"onnxruntime-gpu {ort.__version__} is installed, and this engine needs {oldest}: pip install"
            " 'storm-edge[cuda]'."
        )
    _load_cuda_libraries(ort)
    return ort


def _load_cuda_libraries(ort: Any) -> None:
    """Load CUDA's libraries and cuDNN from NVIDIA's wheels, where ONNX Runtime alone does not look."""
    if hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
            ort.preload_dlls()


def import_tensorrt(api: str) -> Any:
    """The TensorRT module called `api`; raises EngineError naming what to install where it is missing or too old."""
    trt = _import_for_gpu(api, "rtx" if api == "tensorrt_rtx" else "tensorrt")
    _require_taken(api, trt.__version__)
    return trt


def import_cupy() -> Any:
    """CuPy, which holds tensors on a GPU; raises EngineError naming what to install."""
    return _import_for_gpu("cupy", "tensorrt")


def import_pynvvideocodec() -> Any:
    """PyNvVideoCodec, which decodes on the GPU; raises EngineError, saying what is missing."""
    try:
        return importlib.import_module("PyNvVideoCodec")
    except ImportError as e:
        raise EngineError(f"{e.name or 'PyNvVideoCodec'} is not installed: pip install 'storm-edge[nvdec]'.") from e
    except RuntimeError as e:  # several lines, of which the first says what happened
        raise EngineError(
            f"PyNvVideoCodec finds no driver ({str(e).splitlines()[0]}): install NVIDIA's with its video libraries; in"
            " a container set NVIDIA_DRIVER_CAPABILITIES=compute,utility,video."
        ) from e


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


def require_package(runner: str) -> str:
    """The version of the package that a runner needs; raises EngineError where it is missing, too old or too new."""
    row = RUNNERS[runner]
    version = installed(row.package)
    if version is None:
        raise EngineError(f"{row.package} is not installed: {row.install}.")
    _require_taken(row.package, version)
    return version


def _require_taken(package: str, version: str) -> None:
    """Raise EngineError for a version of a package that engines are not written for."""
    row = next(row for row in RUNNERS.values() if row.package == package)
    if not row.takes(version):
        until = f" and before {row.past}" if row.past else ""
        raise EngineError(
            f"{package} {version} is installed, and engines are for {row.words} from {row.oldest} on{until}:"
            f" {row.install}."
        )


def installed(package: str) -> str | None:
    """The version of a Python package, by the name it is imported by, whichever wheel or JetPack brought it."""
    for name in (package, f"{package}_cu13", f"{package}_cu12", f"{package}-gpu"):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None

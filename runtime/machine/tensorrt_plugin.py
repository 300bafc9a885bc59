"""The operators' library for TensorRT, loaded into a process: once, and for the interface it was compiled against."""

from __future__ import annotations

import ctypes
import threading
from pathlib import Path
from typing import Any

from storm_edge.plugins.libraries import build_command
from storm_edge.runtime.errors import EngineError

_RTX = "tensorrt_rtx"
_RTX_INTERFACE = 11  # TensorRT for RTX counts versions of its own; from 1.7 on it has the interface of TensorRT 11
_loading = threading.Lock()
_loaded: set[tuple[str, Path]] = set()  # libraries by package: TensorRT loads none of them twice


def load_plugin(trt: Any, package: str, library: Path) -> None:
    """Let TensorRT know the operators; raises EngineError where the library is not made for this TensorRT.

    Asked of the library first: one that was compiled against the headers of another major version would be called
    through interfaces it does not have.
    """
    with _loading:
        if (package, library) in _loaded:
            return
        made_for, here = _made_for(library), _interface(trt, package)
        if made_for != here:
            raise EngineError(
                f"the operators in {library} are made for TensorRT {made_for}, and {package} {trt.__version__} has the"
                f" interface of {here}: set TENSORRT_ROOT to a TensorRT {here} and run `{build_command()}` again."
            )
        if trt.get_plugin_registry().load_library(str(library)) is None:
            raise EngineError(
                f"{package} {trt.__version__} cannot load the operators in {library}: run `{build_command()}` again"
                " here."
            )
        _loaded.add((package, library))


def _made_for(library: Path) -> int:
    """The major version of TensorRT's headers that the library was compiled against."""
    try:
        return int(ctypes.CDLL(str(library)).storm_tensorrt_major())
    except (OSError, AttributeError) as e:  # no library, or one from before it could say this
        reason = " ".join(str(e).split())
        raise EngineError(
            f"the operators in {library} cannot be loaded ({reason}): run `{build_command()}` again here."
        ) from e


def _interface(trt: Any, package: str) -> int:
    return _RTX_INTERFACE if package == _RTX else int(trt.__version__.split(".")[0])

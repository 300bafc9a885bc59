"""Where the operators' native libraries are, where they have been built (standard library only)."""

from __future__ import annotations

import os
from pathlib import Path

ONNXRUNTIME = "libstorm_onnxruntime.so"
TENSORRT = "libstorm_tensorrt.so"
CPU = "libstorm_cpu.so"

_HERE = Path(__file__).resolve().parent


def find_library(name: str) -> Path | None:
    """The library of this file name, or None where it has not been built.

    Looked for in build/plugins of a source checkout and in lib/ of the installed package. STORM_PLUGIN_PATH, folders as
    in PATH, stands in for both: empty, it switches all native forms off.
    """
    chosen = os.environ.get("STORM_PLUGIN_PATH")
    if chosen is not None:
        folders = [Path(folder) for folder in chosen.split(os.pathsep) if folder]
    else:
        folders = [_HERE.parent / "build" / "plugins", _HERE / "lib"]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)

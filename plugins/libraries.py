"""Where the operators' native libraries are, where they have been built (standard library only)."""

from __future__ import annotations

import os
from pathlib import Path

ONNXRUNTIME = "libstorm_onnxruntime.so"
TENSORRT = "libstorm_tensorrt.so"
CPU = "libstorm_cpu.so"
CUDA = "libstorm_cuda.so"

_HERE = Path(__file__).resolve().parent


def in_checkout() -> bool:
    """Whether this package lies in a source checkout, and not where pip installed it."""
    return (_HERE.parent / "pyproject.toml").is_file()


def build_folder() -> Path:
    """Where the libraries are built to: build/plugins of a source checkout, or lib/ of the installed package."""
    return _HERE.parent / "build" / "plugins" if in_checkout() else _HERE / "lib"


def build_command() -> str:
    """The command that builds the libraries, for messages."""
    return "make plugin" if in_checkout() else "python -m storm_edge.plugins.build"


def find_library(name: str) -> Path | None:
    """The library of this file name, or None where it has not been built.

    Looked for in `build_folder()`. STORM_PLUGIN_PATH, folders as in PATH, stands in for it: empty, it switches all
    native forms off.
    """
    chosen = os.environ.get("STORM_PLUGIN_PATH")
    folders = [build_folder()] if chosen is None else [Path(folder) for folder in chosen.split(os.pathsep) if folder]
    return next((folder / name for folder in folders if (folder / name).is_file()), None)

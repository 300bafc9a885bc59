"""What this machine has: versions, processor, memory, and which targets it can build and run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path

from storm_edge.runtime.targets import TARGETS

_PACKAGES = ("storm-edge", "onnxruntime", "onnxruntime-gpu", "av", "numpy", "torch", "transformers", "onnx", "tensorrt")


def examine() -> dict[str, dict[str, str]]:
    """Facts by section; what is absent is said, with how to get it where it is needed."""
    return {
        "machine": {
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "python": platform.python_version(),
            "processor": _processor(),
            "cores": str(len(os.sched_getaffinity(0))),
            "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB",
        },
        "packages": {name: _version(name) for name in _PACKAGES},
        "operators": {
            "SelectiveScan": "ONNX function (runs on any engine)",
            "CausalConv1d": "ONNX function (runs on any engine)",
        },
        "targets": {
            t.name: f"{t.hardware}: " + (", ".join(t.run) if t.run else "not in this version") for t in TARGETS.values()
        },
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        hint = {"onnxruntime": ": pip install 'storm-edge[cpu]'", "torch": ": only `storm export` needs it"}
        return "not installed" + hint.get(package, "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    facts = {key.strip(): value.strip() for key, value in found.items()}
    flags = set(facts.get("flags", facts.get("Features", "")).split())
    wanted = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "asimd", "asimddp", "i8mm", "bf16")
    return (
        f"{facts.get('model name', 'unknown')} ({' '.join(f for f in wanted if f in flags) or 'no vector extensions'})"
    )

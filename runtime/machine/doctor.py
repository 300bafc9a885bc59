"""What this machine has: processor, GPU, Jetson release, software, operators, and the targets it can build and run."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path

from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.machine.native import OPERATORS, native_forms
from storm_edge.runtime.machine.packages import import_onnxruntime, installed
from storm_edge.runtime.machine.probe import Machine, probe
from storm_edge.runtime.machine.targets import TARGETS
from storm_edge.runtime.runners import RUNNERS

_PACKAGES = (
    "storm-edge",
    "onnxruntime",
    "onnxruntime-gpu",
    "tensorrt",
    "tensorrt-rtx",
    "tensorrt-llm",
    "vllm",
    "av",
    "numpy",
    "torch",
    "transformers",
    "onnx",
)


def examine() -> dict[str, dict[str, str]]:
    """Facts by section; what is absent is said, with how to get it where it is needed."""
    machine = probe()
    return {
        "machine": {
            "system": f"{platform.system()} {platform.release()} {platform.machine()}",
            "python": platform.python_version(),
            "processor": _processor(),
            "cores": str(len(os.sched_getaffinity(0))),
            "memory": _memory(machine),
        },
        "gpu": gpu_facts(machine),
        "engines": {"ONNX Runtime": _providers(), "TensorRT": _tensorrt(machine)} | _language_runners(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "operators": operator_facts(),
        "targets": target_facts(machine),
    }


def operator_facts() -> dict[str, str]:
    """The forms each operator has here, and the state of each native library."""
    forms = native_forms()
    anywhere = ["ONNX function", *(["PyTorch"] if importlib.util.find_spec("torch") else [])]
    facts = {name: ", ".join([*anywhere, *(f.words for f in forms if name in f.operators)]) for name in OPERATORS}
    return facts | {form.words: form.state for form in forms}


def gpu_facts(machine: Machine) -> dict[str, str]:
    """GPU, driver, and on a Jetson its board, releases and power mode."""
    facts = {}
    for i, gpu in enumerate(machine.gpus):
        sm = f"SM {gpu.sm}" if gpu.sm else "unknown compute capability"
        memory = f", {gpu.memory:.1f} GiB" if gpu.memory else ", shares the processor's memory"
        facts[f"gpu {i}"] = f"{gpu.name}, {sm}{memory}, driver {gpu.driver or 'version unknown'}"
    if not machine.gpus:
        facts["gpu"] = "none found (nvidia-smi is missing or reports none)"
    if machine.board:
        facts["board"] = machine.board
    if machine.l4t:
        release = f"JetPack {machine.jetpack}" if machine.jetpack else "a JetPack this version does not know"
        facts["jetson linux"] = f"{machine.l4t} ({release})"
    if machine.board or machine.l4t:
        facts["power mode"] = machine.power_mode or "unknown: nvpmodel is missing or refused; try `sudo nvpmodel -q`"
        facts["tegrastats"] = "found" if machine.tegrastats else "missing: power cannot be measured"
    return facts


def target_facts(machine: Machine) -> dict[str, str]:
    """Per target: what this version builds for it, and whether this machine is one."""
    return {
        t.name: f"{t.hardware}: "
        + (", ".join(f"{p} {words.split()[0]}" for p, words in t.status.items()) or "not in this version")
        + (" (this machine)" if t.name in machine.targets else "")
        for t in TARGETS.values()
    }


def _memory(machine: Machine) -> str:
    if machine.memory is None:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.1f} GiB"
    return f"{machine.memory:.1f} GiB, {machine.available or 0:.1f} available, swap {machine.swap or 0:.1f}"


def _providers() -> str:
    try:
        ort = import_onnxruntime()
    except EngineError as e:
        return str(e)
    names = [name.removesuffix("ExecutionProvider") for name in ort.get_available_providers()]
    return f"{ort.__version__} with {', '.join(names)}"


def _tensorrt(machine: Machine) -> str:
    found = [f"Python package {name} {v}" for name in ("tensorrt", "tensorrt_rtx") if (v := installed(name))]
    if machine.libnvinfer:
        found.append(f"libnvinfer {machine.libnvinfer}")
    hint = "; a virtual environment on a Jetson sees JetPack's with --system-site-packages" if machine.board else ""
    return ", ".join(found) or f"not installed{hint}"


def _language_runners() -> dict[str, str]:
    """What runs language models alone here, and whether engines are written for its version."""
    facts = {}
    for runner in RUNNERS.values():
        if runner.language:
            version = installed(runner.package)
            other = f": engines are for {runner.oldest} up to {runner.past}" if not runner.takes(version or "") else ""
            facts[runner.words] = f"{version}{other}" if version else "not installed (`--llm` on a data-center GPU)"
    return facts


def _version(package: str) -> str:
    hint = {"onnxruntime": ": pip install 'storm-edge[cpu]'", "torch": ": only `storm export` needs it"}
    return installed(package) or "not installed" + hint.get(package, "")


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

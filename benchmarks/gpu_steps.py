"""The steps of a GPU report that are more than a command: `python benchmarks/gpu_steps.py STEP`, where a GPU is.

The last line that a step prints is its figures as JSON, or why it failed or has nothing to do here.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

from gpu_report import ROOT, SKIPPED
from selective_scan_gpu import load_bridge, scans

FOLDER = ROOT / "out" / "gpu-report"
REPEATS = 1000
SCAN = (1, 4173, 512, 16)  # batch, tokens, channels, states: 33 chunks and a rest in 16 blocks' rings
FRAMES, TOKENS = 32, 16


def skip(why: str) -> NoReturn:
    """End as a step that has nothing to do on this machine."""
    print(why)
    sys.exit(SKIPPED)


def bridge() -> ctypes.CDLL:
    """The kernels behind functions for tests; ends the step where they are not built."""
    found = load_bridge()
    if found is None:
        sys.exit("the kernels are not built, or the driver does not answer: see the log of `kernels built`")
    return found


def tests() -> dict[str, Any]:
    """The kernels' tests on the GPU; those of the algorithm on a CPU are not repeated here."""
    bridge()
    where = [
        f"tests/plugins/{part}" for part in ("selective_scan/cuda", "causal_conv1d/cuda", "tensorrt/test_plugin.py")
    ]
    command = [sys.executable, "-m", "pytest", "-rs", "--ignore-glob=*test_emulation.py", *where]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    counts = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)}
    if done.returncode or not counts.get("passed"):
        return counts | {"reason": done.stdout.strip().rpartition("\n")[2] or "no test ran"}
    return counts


def sanitize(tool: str) -> dict[str, Any]:
    """compute-sanitizer over the program that runs every kernel on sizes that meet every edge."""
    bridge()
    program = shutil.which("compute-sanitizer") or shutil.which("/usr/local/cuda/bin/compute-sanitizer")
    if program is None:
        skip("there is no compute-sanitizer: it comes with the CUDA toolkit")
    check = ROOT / "build" / "plugins" / "storm_cuda_check"
    done = subprocess.run([program, "--tool", tool, "--error-exitcode", "9", check], stdout=subprocess.PIPE, text=True)
    print(done.stdout)
    summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: (.*)", done.stdout)
    said = {"said": summary[-1] if summary else "no summary"}
    return said | ({"reason": said["said"]} if done.returncode else {})


def repeat() -> dict[str, Any]:
    """The same scan again and again: which block comes first may not change a bit."""
    import ml_dtypes
    import numpy as np

    library = bridge()
    library.storm_cuda_scan.restype = ctypes.c_char_p
    library.storm_cuda_scan.argtypes = [ctypes.c_int, *[ctypes.c_int64] * 4, ctypes.c_int, *[ctypes.c_void_p] * 3]
    rng = np.random.default_rng(0)
    batch, length, channels, state = SCAN
    shapes = [(batch, length, channels)] * 2 + [(channels, state)] + [(batch, length, state)] * 2
    shapes += [(channels,), (batch, length, channels), (channels,), (batch, channels, state)]
    narrow = (0, 1, 3, 4, 6)  # u, delta, B, C and z; the rest is float32
    arrays = [rng.standard_normal(shape, np.float32) for shape in shapes]
    arrays[2] = -np.exp(arrays[2])
    arrays = [a.astype(ml_dtypes.bfloat16) if i in narrow else a for i, a in enumerate(arrays)]
    pointers = (ctypes.c_void_p * len(arrays))(*(a.ctypes.data for a in arrays))
    first: bytes | None = None
    for run in range(REPEATS):
        y, last = np.empty(shapes[0], ml_dtypes.bfloat16), np.empty(shapes[-1], np.float32)
        error = library.storm_cuda_scan(2, *SCAN, 0, pointers, y.ctypes.data, last.ctypes.data)
        if error is not None:
            return {"reason": f"scan {run}: {error.decode()}"}
        result = y.tobytes() + last.tobytes()
        if first is not None and result != first:
            return {"runs": run + 1, "reason": f"scan {run} differs from the first"}
        first = result
    return {"identical": REPEATS}


def scan() -> dict[str, Any]:
    """The scan at storm-7b's width beside the GPU's limits and mamba_ssm's kernel."""
    found = scans(bridge())
    return found if found["scans"] else {"reason": "the shortest scan failed"}


def demo() -> dict[str, Any]:
    """The trained demo through the target cuda."""
    return _engine(_demo(), "cuda")


def slice_() -> dict[str, Any]:
    """storm-7b's widths with few layers, random weights, through the target cuda."""
    from models import wide_slice

    from storm_edge.export.export_bundle import export_bundle
    from storm_edge.export.initialize import initialize

    initialize(wide_slice(), FOLDER / "slice-checkpoint")
    export_bundle(FOLDER / "slice-checkpoint", FOLDER / "slice")
    return _engine(FOLDER / "slice", "cuda")


def tensorrt() -> dict[str, Any]:
    """The demo through TensorRT, where it is installed."""
    from storm_edge.runtime.machine.probe import probe
    from storm_edge.runtime.machine.targets import TARGETS

    if importlib.util.find_spec("tensorrt") is None:
        skip("TensorRT is not installed")
    fitting = [name for name in probe().targets if TARGETS[name].runner == "tensorrt"]
    if not fitting:
        skip("no target of TensorRT is this GPU")
    return _engine(_demo(), fitting[0], "--max-frames", str(FRAMES))


def _demo() -> Path:
    """The demo's bundle, exported where it is not there yet."""
    if not (FOLDER / "demo" / "manifest.json").is_file():
        _storm("export", "demo/checkpoint", "-o", FOLDER / "demo", "--clips", "demo", "--force")
    return FOLDER / "demo"


def _storm(*arguments: object) -> str:
    """What a command of ours prints; ends the step with its error line where it fails."""
    command = [str(Path(sys.executable).parent / "storm"), *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)
    return done.stdout


def _engine(bundle: Path, target: str, *options: str) -> dict[str, Any]:
    """Build and verify an engine, and ask it twice: the second answer's times are those without starting up."""
    record = json.loads(_storm("build", bundle, "--target", target, "--allow-mismatch", "--json", *options))
    checks = record["verification"]
    worst: dict[str, dict[str, float]] = {}
    for check in checks:
        keep = min if check["metric"] in ("cosine", "greedy tokens") else max
        of_stage = worst.setdefault(check["stage"], {})
        of_stage[check["metric"]] = keep(of_stage.get(check["metric"], check["value"]), check["value"])
    names = ("name", "target", "precision", "llm_precision", "runners", "verified")
    passed = sum(check["passed"] for check in checks)
    engine = {name: record[name] for name in names} | {"checks": len(checks), "passed": passed, "worst": worst}
    made = {"engines": [engine | _asked(bundle, record["name"])]}
    return made if record["verified"] else made | {"reason": f"{len(checks) - passed} of {len(checks)} checks failed"}


def _asked(bundle: Path, engine: str) -> dict[str, Any]:
    from storm_edge.export.export_bundle import synthetic_frames
    from storm_edge.runtime import SamplingOptions, load

    pipeline = load(bundle, engine)
    frames = synthetic_frames(FRAMES, pipeline.bundle.config.vision.image_size, seed=3)
    for _ in range(2):
        answer = pipeline.open(frames, frames=FRAMES).ask("What happens?", SamplingOptions(max_tokens=TOKENS))
        answer.read()
    stats = vars(answer.stats)
    query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "--id=0"]
    used = subprocess.run(query, capture_output=True, text=True).stdout.strip()
    memory = {key: value for key, value in stats.items() if key.endswith("_bytes")}
    memory |= {"in_use_on_the_gpu_bytes": int(used) << 20} if used.isdigit() else {}
    counts = {key: stats[key] for key in ("frames", "visual_tokens", "prompt_tokens", "answer_tokens")}
    return {"seconds": dict(stats["seconds"]), "counts": counts, "memory": memory}


STEPS = {step.__name__.rstrip("_"): step for step in (tests, sanitize, repeat, scan, demo, slice_, tensorrt)}


def main() -> int:
    """Run the step named on the command line; 1 where its figures have a reason to fail."""
    figures = STEPS[sys.argv[1]](*sys.argv[2:])
    print(json.dumps(figures))
    return int("reason" in figures)


if __name__ == "__main__":
    sys.exit(main())

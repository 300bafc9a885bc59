"""What a machine with an NVIDIA GPU can say of this project, in one command: `make gpu-report`.

Every step is a process of its own with a time limit, and may fail alone. Writes docs/gpu/<gpu>.json and the same as a
page, and brings the README's matrix up to date. Needs Python alone: the steps install and build what they use.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gpu_page import page

ROOT = Path(__file__).resolve().parents[1]
SCHEMA = 1
VENV = ".venv-gpu"  # ONNX Runtime with CUDA and the one without it exclude each other, so not in .venv
MOST = 600  # seconds of all steps but those that install
SKIPPED = 77  # the exit status of a step that has nothing to do here; its last line says why
_LONGEST = 300  # characters of a reason


@dataclass(frozen=True)
class Step:
    """Commands that run one after the other. `limit` in seconds, for all of them; `counted` towards MOST."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    limit: int
    counted: bool = True


@dataclass(frozen=True)
class Outcome:
    """How a step ended: passed, failed, timed out or skipped. `figures` is the JSON object of its last line, if any."""

    name: str
    state: str
    seconds: float
    reason: str
    figures: dict[str, Any]


def steps(python: str, wheels: Path | None, mamba: Path | None) -> list[Step]:
    """Every step in its order; those before it make what one needs."""
    inside = f"{VENV}/bin/python"
    offline = ("--no-index", "--find-links", str(wheels)) if wheels else ()
    pip = (inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *offline)
    tools = ("-c", "constraints.txt", "-e", ".[cuda,export,demo]", "cmake", "ninja", "pytest")
    named = {
        "kernels tested": ("tests", 60),
        "memcheck": ("sanitize memcheck", 40),
        "racecheck": ("sanitize racecheck", 50),
        "synccheck": ("sanitize synccheck", 30),
        "1,000 scans": ("repeat", 20),
        "scan benchmark": ("scan", 30),
        "demo on cuda": ("demo", 60),
        "7B-width slice on cuda": ("slice", 130),
        "TensorRT": ("tensorrt", 60),
    }
    made = [Step("environment", ((python, "-m", "venv", VENV), (*pip, *tools)), 1800, counted=False)]
    if mamba:
        from_source = ("--no-build-isolation", "--no-deps", str(mamba.resolve()))
        made.append(Step("mamba_ssm", ((*pip, *from_source),), 1800, counted=False))
    made.append(Step("kernels built", ((inside, "-m", "storm_edge.plugins.build"),), 120))
    made += [Step(n, ((inside, "benchmarks/gpu_steps.py", *w.split()),), s) for n, (w, s) in named.items()]
    return made


def first_gpu() -> dict[str, str] | None:
    """The first GPU that nvidia-smi answers for, by what it calls the fields; None where there is none."""
    fields = ("name", "compute_cap", "driver_version", "memory.total")
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    values = [value.strip() for value in done.stdout.partition("\n")[0].split(",")]
    return dict(zip(fields, values, strict=True)) if done.returncode == 0 and len(values) == len(fields) else None


def run(step: Step, folder: Path) -> Outcome:
    """Run a step; what it prints goes to a file in `folder`. Ends all its processes at its limit."""
    log = folder / f"{re.sub(r'[^a-z0-9]+', '-', step.name.lower())}.log"
    began = time.monotonic()
    code: int | None = 0
    with log.open("wb") as output:
        for command in step.commands:
            left = step.limit - (time.monotonic() - began)
            code = _run_one(command, output, left)
            if code != 0:
                break
    seconds = time.monotonic() - began
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    figures = _figures(last)
    reason = str(figures.pop("reason", "" if figures else last))
    if code is None:
        return Outcome(step.name, "timed out", seconds, f"took more than {step.limit} s", {})
    if code == 0:
        return Outcome(step.name, "passed", seconds, "", figures)
    ended = ": ".join(words for words in (f"ended by signal {-code}" if code < 0 else "", reason) if words)
    ended = ended or f"ended with exit status {code}"
    return Outcome(step.name, "skipped" if code == SKIPPED else "failed", seconds, ended[:_LONGEST], figures)


def _run_one(command: tuple[str, ...], output: Any, limit: float) -> int | None:
    """The exit status of a command; None where it had to be ended."""
    # One GPU, so that every figure is of the one that the report names.
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "0", "PYTHONUNBUFFERED": "1"}
    try:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    except OSError as e:
        output.write(f"{command[0]}: {e.strerror}\n".encode())
        return 1
    try:
        return process.wait(max(limit, 0))
    except subprocess.TimeoutExpired:
        return None
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _figures(line: str) -> dict[str, Any]:
    with contextlib.suppress(ValueError):
        found = json.loads(line)
        if isinstance(found, dict):
            return found
    return {}


def report(gpu: dict[str, str], outcomes: list[Outcome], mamba: bool) -> dict[str, Any]:
    """The whole report as it is written to JSON."""
    commit = subprocess.run(["git", "rev-parse", "--short=12", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return {
        "schema": SCHEMA,
        "date": datetime.date.today().isoformat(),
        "commit": commit.stdout.strip() or "unknown",
        "gpu": gpu,
        "machine": {"processor": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        "mamba_ssm": mamba,
        "steps": [asdict(outcome) for outcome in outcomes],
    }


def publish(made: dict[str, Any], docs: Path) -> Path:
    """Write the report's JSON and page into `docs`; returns the page's path."""
    name = re.sub(r"[^a-z0-9]+", "-", made["gpu"]["name"].lower()).strip("-")
    docs.mkdir(parents=True, exist_ok=True)
    (docs / f"{name}.json").write_text(json.dumps(made, indent=2) + "\n", encoding="utf-8")
    written = docs / f"{name}.md"
    written.write_text(page(made), encoding="utf-8")
    return written


def main() -> int:
    """Run every step and write the report; 2 without a GPU, 1 where a step failed."""
    parser = argparse.ArgumentParser(prog="make gpu-report", description=__doc__)
    parser.add_argument("--wheels", type=Path, metavar="DIR", help="install from these wheels, without a network")
    parser.add_argument(
        "--mamba", type=Path, metavar="DIR", help="mamba_ssm's source, to measure its kernel beside ours"
    )
    given = parser.parse_args()
    gpu = first_gpu()
    if gpu is None:
        print("error: nvidia-smi finds no NVIDIA GPU here: run this on a machine that has one.", file=sys.stderr)
        return 2
    folder = ROOT / "out" / "gpu-report"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    outcomes = []
    for step in steps(sys.executable, given.wheels and given.wheels.resolve(), given.mamba):
        outcomes.append(run(step, folder))
        last = outcomes[-1]
        print(f"{last.name:<24}{last.state:<10}{last.seconds:>7.1f} s  {last.reason}", flush=True)
    written = publish(report(gpu, outcomes, given.mamba is not None), ROOT / "docs" / "gpu")
    matrix = (f"{VENV}/bin/python", "-m", "storm_edge.runtime.machine.matrix", "README.md")
    updated = run(Step("matrix", (matrix,), 30, counted=False), folder)
    print(f"{written.relative_to(ROOT)}; logs in {folder.relative_to(ROOT)}; README's matrix: {updated.state}")
    return int(any(outcome.state in ("failed", "timed out") for outcome in [*outcomes, updated]))


if __name__ == "__main__":
    sys.exit(main())

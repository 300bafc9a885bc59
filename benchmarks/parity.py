"""Measure how closely CPU engines follow PyTorch, and what answering takes; prints Markdown.

    python benchmarks/parity.py > docs/parity.md
    python benchmarks/parity.py storm-mini                only that model

Two models with random weights: storm-mini, and a slice with storm-7b's widths (2 vision blocks, 1 temporal layer, 2
decoder layers, a vocabulary of 4096), which needs about 10 GB of memory and disk and some minutes.
"""

from __future__ import annotations

import datetime
import platform
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from models import MODELS

from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.export_bundle import export_bundle, synthetic_frames
from storm_edge.export.initialize import initialize
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.machine.doctor import examine
from storm_edge.runtime.machine.targets import target
from storm_edge.runtime.video.encode import encode_video


def measure(name: str, config: StormConfig, folder: Path) -> None:
    """Print a model's parity table, and what one question about a video of 32 frames takes."""
    seconds = {}
    start = time.perf_counter()
    initialize(config, folder / "checkpoint")
    seconds["init"] = time.perf_counter() - start
    start = time.perf_counter()
    export_bundle(folder / "checkpoint", folder / "bundle")
    seconds["export"] = time.perf_counter() - start
    start = time.perf_counter()
    record = build(Bundle.open(folder / "bundle"), target("cpu"), BuildOptions())
    seconds["build and verify"] = time.perf_counter() - start
    worst: dict[tuple[str, str], list[float]] = defaultdict(list)
    for row in record.verification:
        worst[row.stage, row.metric].append(row.value)
    print(f"\n## {name}\n")
    print("Worst of all reference clips; limits as in `runtime/proof/verify.py`.\n")
    print("| stage | 1 - cosine | norm ratio - 1 | max error / max | greedy tokens |\n|---|---|---|---|---|")
    for stage in dict.fromkeys(stage for stage, _ in worst):
        tokens = worst.get((stage, "greedy tokens"))
        agree = f"{min(tokens) * 64:.0f} of 64" if tokens else ""
        print(
            f"| {stage} | {1 - min(worst[stage, 'cosine']):.1e} | {max(worst[stage, 'norm ratio - 1']):.1e}"
            f" | {max(worst[stage, 'max error']):.1e} | {agree} |"
        )
    print("\n" + ", ".join(f"{step} {value:.1f} s" for step, value in seconds.items()) + ".\n")
    side = config.vision.image_size
    encode_video(folder / "clip.mp4", synthetic_frames(64, side, seed=3), fps=8)
    command = [Path(sys.executable).parent / "storm", "run", folder / "bundle", folder / "clip.mp4", "What happens?"]
    run = subprocess.run([*command, "--frames", "32", "--max-tokens", "16"], capture_output=True, text=True, check=True)
    print(f"`storm run BUNDLE clip.mp4 'What happens?' --frames 32 --max-tokens 16` ({side} x {side}, H.264):\n")
    print(f"    {run.stderr.strip()}")


def main() -> None:
    """Print the whole report."""
    facts = examine()
    print("# Parity with PyTorch, and timings, on a CPU\n")
    print(f"{datetime.date.today()}, {facts['machine']['processor']}, {facts['machine']['cores']} cores,")
    print(
        f"ONNX Runtime {facts['packages']['onnxruntime']}, torch {facts['packages']['torch']}, numpy {np.__version__},"
    )
    print(f"Python {platform.python_version()}. Made by `make parity`. Random weights, fp32, three clips of 4 to 12")
    print("frames each; reference by PyTorch and transformers in fp32, greedy tokens 64 a clip.")
    for name in sys.argv[1:] or MODELS:
        with tempfile.TemporaryDirectory() as folder:
            measure(name, MODELS[name], Path(folder))


if __name__ == "__main__":
    main()

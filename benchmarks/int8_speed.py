"""Time the vision tower with storm-7b's widths on a CPU: fp32, bf16 and int8, side by side; prints Markdown.

    python benchmarks/int8_speed.py               2 blocks; some minutes, 6 GB of memory
    python benchmarks/int8_speed.py --blocks 4

Random weights: speed does not depend on them, and accuracy is not claimed. Every form computes the same frames in turn,
round after round, so that what else the machine does hits all alike; the fastest round of each counts.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.metadata
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from models import wide_slice

from storm_edge.calibration.calibrate import calibrate
from storm_edge.demo.dataset import samples
from storm_edge.export.build.build import build
from storm_edge.export.build.options import BuildOptions
from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.export_bundle import export_bundle
from storm_edge.export.initialize import initialize
from storm_edge.export.network.load import load_vision
from storm_edge.runtime.answer.pipeline import load
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.machine.doctor import examine
from storm_edge.runtime.machine.targets import target

ROUNDS = 7
FP32 = "ONNX Runtime fp32"


def tower(blocks: int) -> StormConfig:
    """storm-7b's vision tower with so many blocks that run, and little behind it."""
    config = wide_slice()
    vision = config.vision.model_copy(update={"num_hidden_layers": blocks + 1})
    llm = config.llm.model_copy(update={"num_hidden_layers": 1})
    return config.model_copy(update={"vision": vision, "llm": llm})


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--frames", type=int, default=2, help="frames that are computed at once")
    given = parser.parse_args()
    config = tower(given.blocks)
    size = config.vision.image_size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        initialize(config, folder / "checkpoint")
        export_bundle(folder / "checkpoint", folder / "bundle")
        bundle = Bundle.open(folder / "bundle")
        calibrate(bundle, lambda: (s.frames for s in samples(frames=8, size=size, split="train")), "demo", samples=8)
        stages = {}
        for title, precision in ((FP32, "fp32"), ("ONNX Runtime int8", "int8")):
            record = build(bundle, target("cpu"), BuildOptions(precision, "fp32", allow_mismatch=True))
            stages[title] = load(bundle.root, record.name).stages
        frames = next(iter(samples(frames=8, size=size, split="test"))).frames[: given.frames]
        model = load_vision(Checkpoint.open(folder / "checkpoint")).eval()
        half = load_vision(Checkpoint.open(folder / "checkpoint")).eval().bfloat16()
        given_frames = torch.from_numpy(frames)

        def torch_form(module: torch.nn.Module) -> Callable[[], Any]:
            def run() -> Any:
                with torch.inference_mode():
                    return module(given_frames).float().numpy()

            return run

        forms: dict[str, Callable[[], Any]] = {
            FP32: lambda: stages[FP32].vision(frames),
            "PyTorch fp32": torch_form(model),
            "PyTorch bf16": torch_form(half),
            "ONNX Runtime int8": lambda: stages["ONNX Runtime int8"].vision(frames),
        }
        expected = forms[FP32]()
        seconds = dict.fromkeys(forms, float("inf"))
        cosines = {}
        for _ in range(ROUNDS):
            for title, form in forms.items():
                start = time.perf_counter()
                made = form().astype(np.float64)
                seconds[title] = min(seconds[title], (time.perf_counter() - start) / len(frames))
                cosines[title] = np.sum(made * expected) / np.linalg.norm(made) / np.linalg.norm(expected)
    machine = examine()["machine"]
    print(f"{datetime.date.today()}, {machine['processor']}, {machine['cores']} cores, PyTorch {torch.__version__},")
    print(
        f"ONNX Runtime {importlib.metadata.version('onnxruntime')}: {given.blocks} blocks of storm-7b's vision tower,"
    )
    print(f"{given.frames} frames of {size} x {size} at once, fastest of {ROUNDS} rounds.\n")
    print("| form | ms a frame | frames a second against ONNX Runtime fp32 | 1 - cosine |\n|---|---|---|---|")
    for title, took in seconds.items():
        print(f"| {title} | {1000 * took:.0f} | {seconds[FP32] / took:.2f} x | {1 - cosines[title]:.1e} |")


if __name__ == "__main__":
    main()

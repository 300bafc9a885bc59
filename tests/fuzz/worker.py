"""The process in which mutated things are opened: a line in names one, a line out says what came of it.

Lines in are JSON {"kind", "path", "seed"}; lines out {"outcome": "answer" | "error" | "fault", "words", "memory",
"peak", "files"}. A fault is anything but an answer or one StormError of one line.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import sys
import traceback
from pathlib import Path

import numpy as np

from storm_edge.export.checkpoint.folder import Checkpoint
from storm_edge.export.graph_file import load_model
from storm_edge.export.passes.quantize import quantize_step
from storm_edge.export.passes.smoothquant import smoothquant_steps
from storm_edge.runtime import load
from storm_edge.runtime.bundle.calibration import calibration_names, find_awq, find_calibration
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import StormError
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.video import read_frames

MOST_FRAMES = 200


def open_video(path: Path, rng: random.Random) -> str:
    """Read a video in one of the ways there are; a reader may stop early."""
    how = rng.choice(({}, {"frames": 5}, {"frames": 64}, {"fps": 2}, {"fps": 30}))
    frames, latest = 0, -np.inf
    for batch in read_frames(path, size=16, **how):
        assert batch.frames.shape[1:] == (16, 16, 3)
        assert batch.frames.dtype == np.uint8
        assert len(batch.timestamps) == len(batch.frames)
        assert np.isfinite(batch.timestamps).all()
        assert (np.diff(batch.timestamps, prepend=latest) >= 0).all()
        latest = batch.timestamps[-1]
        frames += len(batch.frames)
        if frames >= MOST_FRAMES:
            break
    assert frames
    return f"{frames} frames"


def open_checkpoint(path: Path, _: random.Random) -> str:
    """Open a checkpoint and read every tensor."""
    checkpoint = Checkpoint.open(path)
    for weights in (checkpoint.vision, checkpoint.temporal, checkpoint.llm):
        for name in weights.names:
            weights.read(name)
        weights.close()
    return "every tensor"


def open_bundle(path: Path, _: random.Random) -> str:
    """Open a bundle, hash it, load its engine and answer."""
    Bundle.open(path).check_hashes()
    pipeline = load(path, threads=1, trust_engines=True)
    size = pipeline.bundle.config.vision.image_size
    frames = np.zeros((4, size, size, 3), np.uint8)
    return pipeline.open(frames).ask("What?", SamplingOptions(max_tokens=2)).read()[:20]


def open_calibration(path: Path, _: random.Random) -> str:
    """Read a bundle's calibrations and quantize its graphs by them, in memory."""
    bundle = Bundle.open(path)
    find_awq(bundle, None)
    for name in calibration_names(bundle):
        calibration = find_calibration(bundle, name)
        for stage in ("vision", "temporal"):
            loaded = load_model(bundle.path(bundle.manifest.graphs[stage].file))
            readers = dict(loaded.tensors)
            for step in (*smoothquant_steps(calibration, stage), quantize_step(calibration, stage, "int8")):
                step.apply(loaded.model, readers)
            for read in readers.values():
                read()
    return "quantized"


KINDS = {
    "video": open_video,
    "checkpoint": open_checkpoint,
    "bundle": open_bundle,
    "calibration": open_calibration,
}


def run(kind: str, path: Path, seed: int) -> tuple[str, str]:
    """Outcome and words of one case."""
    try:
        return "answer", KINDS[kind](path, random.Random(seed))
    except StormError as e:
        whole = "\n" not in str(e) and len(str(e)) < 20_000
        return ("error" if whole else "fault"), f"{type(e).__name__}: {e}"[:400]
    except BaseException:
        return "fault", traceback.format_exc()[-3000:]


def status(key: str) -> int:
    """A figure of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    return 0


def main() -> None:
    """Serve until the input ends."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # so that nothing that a library prints is taken for an answer
    trim = ctypes.CDLL(None).malloc_trim
    for line in sys.stdin:
        case = json.loads(line)
        Path("/proc/self/clear_refs").write_text("5")  # starts the peak anew
        outcome, words = run(case["kind"], Path(case["path"]), case["seed"])
        peak = status("VmHWM")
        gc.collect()
        trim(0)
        files = len(os.listdir("/proc/self/fd"))
        result = {"outcome": outcome, "words": words, "memory": status("VmRSS"), "peak": peak, "files": files}
        answers.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()

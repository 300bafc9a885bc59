"""Measure what decoding beside vision gains, and what looking for still frames costs; prints Markdown.

    python benchmarks/opening.py BUNDLE VIDEO...

Every video is opened with 32 frames, in turn with a thread that decodes ahead and without; the best of several.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from storm_edge.runtime import load
from storm_edge.runtime.answer import encoding
from storm_edge.runtime.answer.pipeline import Pipeline
from storm_edge.runtime.answer.still import StillFrames

FRAMES, TURNS = 32, 2
BESIDE = encoding.ahead


def opened(pipeline: Pipeline, path: Path, *, beside: bool) -> tuple[float, dict[str, float]]:
    """Seconds to open a video, in all and by stage."""

    def here(batches: Any) -> Generator[Any]:
        yield from batches

    encoding.ahead = BESIDE if beside else here  # type: ignore[assignment]
    start = time.perf_counter()
    video = pipeline.open(path, frames=FRAMES)
    assert not video.reused_frames
    return time.perf_counter() - start, video.seconds


def seconds(work: Callable[[], object], times: int = 20) -> float:
    """The fastest of several runs."""
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def moving(frames: Any, tolerance: int) -> None:
    """Compare frames one after the other."""
    StillFrames(tolerance).moving(frames)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description="what opening a video costs")
    parser.add_argument("bundle", type=Path)
    parser.add_argument("videos", type=Path, nargs="+")
    options = parser.parse_args()
    pipeline = load(options.bundle)
    size = pipeline.bundle.config.vision.image_size
    noise = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), dtype=np.uint8)
    vision = seconds(lambda: pipeline.stages.vision(noise), 2) / len(noise)
    print("| video | decoding | waited for frames, s | vision, s | opened after, s |\n|---|---|---|---|---|")
    for path in options.videos:
        runs = [(beside, *opened(pipeline, path, beside=beside)) for _ in range(TURNS) for beside in (False, True)]
        for beside, words in ((False, "before vision"), (True, "beside vision")):
            total, stages = min((run[1:] for run in runs if run[0] is beside), key=lambda run: run[0])
            row = (path.stem, words, f"{stages['video decode']:.1f}", f"{stages['vision']:.1f}", f"{total:.1f}")
            print(f"| {' | '.join(row)} |")
    print(f"\nVision takes {vision * 1000:.1f} ms for a frame of {size} x {size}; comparing it with the last:")
    same = np.stack([noise[0]] * 8)
    for words, tolerance in (("equal", 0), ("within a tolerance", 1)):
        check = seconds(partial(moving, same, tolerance)) / len(same)
        print(f"- {words}: {check * 1e6:.0f} us, {check / vision:.3%}")


if __name__ == "__main__":
    main()

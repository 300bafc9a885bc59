"""Frames a run of the vision tower on a CPU: milliseconds a frame by their number, in turns; Markdown.

python benchmarks/vision_batch.py BUNDLE [--engine NAME]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from storm_edge.runtime import load

FRAMES, BATCHES = 8, (1, 2, 4, 8)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--engine")
    parser.add_argument("--rounds", type=int, default=4)
    given = parser.parse_args()
    pipeline = load(given.bundle, given.engine)
    session, size = pipeline.stages.vision_session, pipeline.bundle.config.vision.image_size
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, size, size, 3), np.uint8)
    least = dict.fromkeys(BATCHES, float("inf"))
    for _ in range(given.rounds):
        for batch in BATCHES:
            begun = time.perf_counter()
            for start in range(0, FRAMES, batch):
                session.run(frames=frames[start : start + batch])
            least[batch] = min(least[batch], (time.perf_counter() - begun) / FRAMES)
    print(f"{pipeline.bundle.config.vision.grid**2} patches a frame; the runtime takes {session.batch} at once.\n")
    print("| frames a run | milliseconds a frame, least |\n|---|---|")
    for batch, seconds in least.items():
        print(f"| {batch} | {1000 * seconds:.0f} |")


if __name__ == "__main__":
    main()

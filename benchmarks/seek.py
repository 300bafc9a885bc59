"""Measure what sampling 64 frames of an hour costs beside decoding all of it; prints Markdown.

    python benchmarks/seek.py > docs/seek.md

Makes an hour of H.264 with B-frames and a keyframe every ten seconds, and its first six minutes, to see whether memory
grows with the length. Every figure comes from a process of its own. Takes some minutes.
"""

from __future__ import annotations

import datetime
import json
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import numpy as np

from storm_edge.runtime.machine.doctor import examine
from storm_edge.runtime.machine.memory import peak_memory_bytes
from storm_edge.runtime.video import read_frames

RATE, GROUP, HEIGHT, WIDTH = 25, 10, 180, 320  # frames a second, seconds, pixels
FRAMES, SIZE = 64, 448


def write(path: Path, seconds: int) -> None:
    """A video in which noise, stripes and brightness move, so that no frame equals another."""
    rng = np.random.Generator(np.random.PCG64(0))
    noise = rng.integers(0, 160, (HEIGHT, WIDTH * 2, 3), dtype=np.uint8)
    options = {"preset": "ultrafast", "g": str(RATE * GROUP), "bf": "2", "crf": "30", "sc_threshold": "0"}
    with av.open(str(path), "w") as output:
        stream: Any = output.add_stream("libx264", rate=RATE, options=options)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for i in range(RATE * seconds):
            picture = noise[:, i % WIDTH : i % WIDTH + WIDTH].copy()  # (H, W, 3)
            picture[i // RATE % HEIGHT] = 255
            output.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        output.mux(stream.encode())


def take(path: Path, how: str) -> dict[str, float]:
    """Seconds and peak memory of reading `path` in this process: "decode" without resizing, "all", or "sample"."""
    start, count = time.perf_counter(), 0
    if how == "decode":
        with av.open(str(path)) as opened:
            opened.streams.video[0].thread_type = "AUTO"
            count = sum(1 for _ in opened.decode(video=0))
    else:
        wanted = FRAMES if how == "sample" else None
        count = sum(len(batch.frames) for batch in read_frames(path, size=SIZE, frames=wanted))
    return {"frames": count, "seconds": time.perf_counter() - start, "bytes": peak_memory_bytes()}


def measure(path: Path, how: str) -> dict[str, float]:
    """`take` in a process of its own."""
    done = subprocess.run([sys.executable, __file__, str(path), how], capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print the report."""
    if len(sys.argv) == 3:
        print(json.dumps(take(Path(sys.argv[1]), sys.argv[2])))
        return
    machine = examine()["machine"]
    with tempfile.TemporaryDirectory() as folder:
        hour, part = Path(folder) / "hour.mp4", Path(folder) / "part.mp4"
        write(hour, 3600)
        write(part, 360)
        rows = {
            (how, name): measure(path, how)
            for how in ("decode", "sample")
            for name, path in (("six minutes", part), ("an hour", hour))
        }
        rows["all", "six minutes"] = measure(part, "all")
    words = {
        "decode": "decode everything, no resizing",
        "sample": f"`read_frames(frames={FRAMES}, size={SIZE})`",
        "all": f"`read_frames(size={SIZE})`: everything, resized",
    }
    print("# Sampling a long video\n")
    print(f"{datetime.date.today()}, {machine['processor']}, {machine['cores']} cores, PyAV {av.__version__},")
    print(f"Python {platform.python_version()}. Made by `python benchmarks/seek.py > docs/seek.md`.")
    print(f"H.264 with B-frames, {WIDTH} x {HEIGHT}, {RATE} frames a second, a keyframe every {GROUP} seconds.\n")
    print("| what | of | frames | seconds | peak MiB |\n|---|---|---|---|---|")
    for (how, name), row in rows.items():
        print(f"| {words[how]} | {name} | {row['frames']} | {row['seconds']:.1f} | {row['bytes'] / 2**20:.0f} |")
    ratio = rows["sample", "an hour"]["seconds"] / rows["decode", "an hour"]["seconds"]
    print(f"\nSampling {FRAMES} frames of the hour takes {ratio:.3f} of the time of decoding all of it (limit 0.2),")
    grown = rows["sample", "an hour"]["bytes"] / rows["sample", "six minutes"]["bytes"]
    print(f"and {grown:.2f} times the memory that sampling six minutes takes.")


if __name__ == "__main__":
    main()

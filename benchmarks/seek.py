"""Measure what sampling frames of a long video costs beside what else one could do; prints Markdown.

    python benchmarks/seek.py CACHE > docs/seek.md

Makes, in the folder CACHE unless they are there, ten minutes of 1920 x 1080 and an hour of 320 x 180, both H.264 with
B-frames and a keyframe every ten seconds, and the hour's first six minutes, to see whether memory grows with the
length. One minute is encoded, and its packets are written again and again. Every figure comes from a process of its
own; the best of several that take turns. Takes some minutes.
"""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from storm_edge.runtime.machine.doctor import examine
from storm_edge.runtime.machine.memory import peak_memory_bytes
from storm_edge.runtime.video import read_frames
from storm_edge.runtime.video.resizing import Pixels, Resizer

RATE, GROUP = 25, 10  # frames a second, seconds
SIZE, FRAMES, SPARSE = 448, 32, 64
SNAP = 5.0  # seconds: half of a group, so that a keyframe is always near
CLIPS = {
    "ten minutes": (1080, 1920, 10),
    "six minutes": (180, 320, 6),
    "an hour": (180, 320, 60),
}
WORDS = {
    "plain": "PyAV: seek to each target and decode up to it",
    "plain threads": 'the same with `thread_type = "AUTO"`',
    "keyframes": "PyAV: seek to each target and take the keyframe before it",
    "sample": "`read_frames(frames=N)`",
    "snap": f"`read_frames(frames=N, snap={SNAP})`",
}
TURNS = 2
ABOUT = """
`read_frames` jumps to the keyframe before each time that is looked at and decodes on from there, with libav's frame
threads. On the way it passes over pictures that no other one refers to, as soon as a later one was met that is shown by
that time: only what is shown, and what that is made from, is decoded. This needs H.264, or HEVC without temporal
sub-layers; other codecs decode every picture of the way. The end of the video is found by decoding its last group once,
and that frame is kept. Frames and timestamps are those of decoding everything: tests/runtime/video compares H.264 with
B-frames, pyramids and open groups, HEVC, VP9, AV1 and MPEG-4, in MP4, Matroska and transport streams, with constant
and varying rates. A transport stream has no index, so it is decoded from its beginning, passing over what it can.

`snap=S` (`storm run --snap S`) takes the nearest keyframe where one is at most S seconds away; it is decoded alone. The
timestamps that come back are those of the frames that were taken.
"""


def write(path: Path, height: int, width: int, minutes: int) -> None:
    """A video in which soft shapes drift over a textured ground that moves, so that no frame equals the next."""
    options = {"preset": "veryfast", "g": str(RATE * GROUP), "bf": "3", "crf": "26", "sc_threshold": "0"}
    partial = path.with_suffix(".partial.mp4")
    with av.open(str(partial), "w") as output:
        stream: Any = output.add_stream("libx264", rate=RATE, options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        stream.thread_type = "FRAME"
        frames = (av.VideoFrame.from_ndarray(planes, format="yuv420p") for planes in pictures(height, width))
        packets = [packet for frame in chain(frames, [None]) for packet in stream.encode(frame)]
        minute = round(60 / packets[0].time_base)
        stamps = [(packet.pts, packet.dts) for packet in packets]
        for i in range(minutes):
            for packet, (shown, decoded) in zip(packets, stamps, strict=True):
                packet.pts, packet.dts = shown + i * minute, decoded + i * minute
                packet.stream, packet.time_base = stream, Fraction(1, RATE)
                output.mux(packet)
    partial.rename(path)


def pictures(height: int, width: int) -> Iterator[npt.NDArray[np.uint8]]:
    """A minute of frames in YUV 4:2:0, (H * 3 / 2, W): Y, then U and V at half the size."""
    rng = np.random.Generator(np.random.PCG64(0))
    coarse = rng.integers(40, 200, (height // 20 + 1, width // 10 + 1), dtype=np.uint8)
    ground = np.kron(coarse, np.ones((20, 20), np.uint8))[:height]  # (H, 2 W)
    ground = np.ascontiguousarray(ground + rng.integers(0, 24, ground.shape, dtype=np.uint8))
    planes = np.full((height * 3 // 2, width), 128, np.uint8)
    for i in range(60 * RATE):
        at = 2 * i % width
        planes[:height] = ground[:, at : at + width]
        top, left = 3 * i % (height // 2), 5 * i % (width // 2)
        planes[top : top + height // 3, left : left + width // 4] += np.uint8(i % 50)
        planes[height : height + height // 8] = 100 + i % 60
        yield planes


def plain(path: Path, *, threads: bool, keyframes: bool = False) -> Iterator[tuple[float, Pixels]]:
    """32 frames and their times, as a loop over targets finds them: seek, decode on, keep the last one shown by then.

    The times to aim at come from the header. Frames are made the size that the model wants.
    """
    resize = Resizer(SIZE)
    with av.open(str(path)) as opened:
        stream = opened.streams.video[0]
        if threads:
            stream.thread_type = "AUTO"
        assert stream.time_base is not None
        assert stream.duration is not None
        assert stream.average_rate is not None
        tick, begin = stream.time_base, stream.start_time or 0
        last = float((stream.duration - 1 / stream.average_rate / tick) * tick)
        for i in range(FRAMES):
            target = last * i / (FRAMES - 1)
            opened.seek(begin + round(target / tick), stream=stream)
            shown = None
            for frame in opened.decode(stream):
                if shown is not None and (keyframes or frame.time > target + 0.5e-3):
                    break
                shown = frame
            assert shown is not None
            yield shown.time, resize(shown)


def take(path: Path, how: str, frames: int) -> dict[str, Any]:
    """Seconds and peak memory of reading `path` in this process, and when the frames are shown."""
    start = time.perf_counter()
    if how in ("plain", "plain threads", "keyframes"):
        shown = list(plain(path, threads=how != "plain", keyframes=how == "keyframes"))
    else:
        batches = read_frames(path, size=SIZE, frames=frames, snap=SNAP if how == "snap" else None)
        shown = [pair for b in batches for pair in zip(b.timestamps.tolist(), b.frames, strict=True)]
    taken = time.perf_counter() - start
    pixels = zlib.crc32(np.stack([frame for _, frame in shown]))
    return {"times": [t for t, _ in shown], "pixels": pixels, "seconds": taken, "bytes": peak_memory_bytes()}


def measure(path: Path, how: str, frames: int) -> dict[str, Any]:
    """`take` in a process of its own."""
    command = [sys.executable, __file__, str(path.parent), "--take", path.name, how, str(frames)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def best(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The fastest of several runs."""
    return min(runs, key=lambda run: run["seconds"])


def mib(run: dict[str, Any]) -> int:
    """The peak memory of a run."""
    return round(run["bytes"] / 2**20)


def main() -> None:
    """Print the report."""
    parser = argparse.ArgumentParser(description="what sampling a long video costs")
    parser.add_argument("cache", type=Path, help="folder for the clips, which are made once")
    parser.add_argument("--make", action="store_true", help="make the clips and stop")
    parser.add_argument("--take", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.take:
        name, how, frames = options.take
        print(json.dumps(take(options.cache / name, how, int(frames))))
        return
    options.cache.mkdir(parents=True, exist_ok=True)
    paths = {name: options.cache / f"{name.replace(' ', '-')}.mp4" for name in CLIPS}
    for name, path in paths.items():
        if not path.exists():
            write(path, *CLIPS[name])
    if options.make:
        return
    report(paths)


def report(paths: dict[str, Path]) -> None:
    """Measure and print."""
    hows = ("plain", "plain threads", "keyframes", "sample", "snap")
    turns = [{how: measure(paths["ten minutes"], how, FRAMES) for how in hows} for _ in range(TURNS)]
    rows = {how: best([turn[how] for turn in turns]) for how in turns[0]}
    long = {
        (how, name): measure(paths[name], how, SPARSE)
        for how in ("sample", "snap")
        for name in ("six minutes", "an hour")
    }
    machine = examine()["machine"]
    print("# Sampling a long video\n")
    print(f"{datetime.date.today()}, {machine['processor']}, {machine['cores']} cores, PyAV {av.__version__},")
    print(f"Python {platform.python_version()}. Made by `python benchmarks/seek.py CACHE > docs/seek.md`.")
    print(f"H.264 with B-frames, {RATE} frames a second, a keyframe every {GROUP} seconds.")
    print(ABOUT)
    print(f"## {FRAMES} frames of ten minutes of 1920 x 1080\n")
    print("| what | frames | seconds | of PyAV's loop | peak MiB |\n|---|---|---|---|---|")
    for how, row in rows.items():
        share = row["seconds"] / rows["plain"]["seconds"]
        print(f"| {WORDS[how]} | {len(row['times'])} | {row['seconds']:.1f} | {share:.2f} | {mib(row)} |")
    same = all(rows["sample"][key] == rows["plain"][key] for key in ("times", "pixels"))
    print(f"\nFrames of {SIZE} x {SIZE}; the best of {TURNS} runs, which took turns. `read_frames` and the loop give")
    print(f"{'the same' if same else 'other'} frames and timestamps.")
    off = np.abs(np.subtract(rows["snap"]["times"], rows["sample"]["times"]))
    print(f"With `snap` they are {off.mean():.1f} s away on average, {off.max():.1f} s at most.\n")
    print(f"## {SPARSE} frames of 320 x 180\n")
    print("| what | of | frames | seconds | peak MiB |\n|---|---|---|---|---|")
    for (how, name), row in long.items():
        print(f"| {WORDS[how]} | {name} | {len(row['times'])} | {row['seconds']:.1f} | {mib(row)} |")
    for what, key in (("time", "seconds"), ("memory", "bytes")):
        grown = long["sample", "an hour"][key] / long["sample", "six minutes"][key]
        print(f"\nSampling the hour takes {grown:.2f} times the {what} that sampling six minutes takes.")


if __name__ == "__main__":
    main()

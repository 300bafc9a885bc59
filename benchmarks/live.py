"""What docs/live.md says of live video, measured by `storm watch` on the demo's scenes. Prints JSON lines.

    python benchmarks/live.py BUNDLE hour [--minutes 60]    # 4 frames a second: memory, ages, latency, equality

The scenes come from another process, as MPEG-TS through a pipe. Lines with "so_far" are not the last word.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from storm_edge.demo.stream import QUESTION, SceneStream
from storm_edge.runtime.video.container import VideoFile
from storm_edge.runtime.video.resizing import Resizer

STORM = Path(sys.executable).parent / "storm"
FPS, WINDOW, EVERY, SIZE = 4.0, 32, 2.0, 64  # SIZE is the side that the demo's model looks at
SAMPLED = 100  # moments that are asked again with `storm run`
MIB, HOUR = 1 << 20, 3600.0
Line = dict[str, Any]


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("part", choices=["hour", "play"])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--copy", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.part == "play":
        play(given.minutes, given.copy)
    else:
        hour(given.bundle, given.minutes)


class _Tee:
    """Writes to two files."""

    def __init__(self, one: IO[bytes], other: IO[bytes]) -> None:
        self._files = one, other

    def write(self, data: bytes) -> int:
        """All of it, to both."""
        for file in self._files:
            file.write(data)
            file.flush()
        return len(data)


def play(minutes: float, copy: Path) -> None:
    """The scenes to standard output and to a file; the time at which they begin to standard error."""
    with copy.open("wb") as file:
        print(time.time(), file=sys.stderr, flush=True)
        SceneStream(fps=FPS).play(_Tee(sys.stdout.buffer, file), round(60 * minutes * FPS))


@contextmanager
def played(bundle: Path, minutes: float, copy: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The player's process."""
    command = [sys.executable, __file__, bundle, "play", "--minutes", minutes, "--copy", copy]
    words = [str(word) for word in command]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as player:
        try:
            yield player
        finally:
            player.kill()


def watching(bundle: Path, source: str, *options: object, **pipes: Any) -> subprocess.Popen[str]:
    """`storm watch` about the demo's question, with a line of JSON for every answer."""
    command = [STORM, "-q", "watch", bundle, source, QUESTION, "--max-tokens", 8, "--json", *options]
    return subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, text=True, **pipes)


def hour(bundle: Path, minutes: float) -> None:
    """A stream in real time: memory, ages, latencies, and `storm run` on the same frames at some moments."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "stream.ts"
        lines: list[Line] = []
        memory: list[tuple[float, float]] = []  # (seconds, MiB)
        with played(bundle, minutes, copy) as player:
            options = ["--fps", FPS, "--window", WINDOW, "--every", EVERY]
            assert player.stderr is not None
            began, told = float(player.stderr.readline()), 0.0
            with watching(bundle, "-", *options, stdin=player.stdout) as watch:
                assert watch.stdout is not None
                for text in watch.stdout:
                    lines.append(json.loads(text))
                    memory.append((lines[-1]["stream_time"], resident(watch.pid)))
                    if lines[-1]["stream_time"] > told + 300:
                        told = lines[-1]["stream_time"]
                        report("hour", summary(lines, memory, began), so_far=True)
        report("hour", summary(lines, memory, began) | equality(bundle, copy, lines, Path(folder)))


def summary(lines: list[Line], memory: list[tuple[float, float]], began: float) -> Line:
    """Figures of the answers so far; memory counts from a sixth of the time on, ages from 10 s on: all is warm then."""
    warm = [line for line in lines if line["stream_time"] >= 10 and not line["ended"]]
    ages = np.array([line["age"] for line in warm] or [np.nan])
    since = np.array([asked(line) - began - line["stream_time"] for line in warm] or [np.nan])
    latency = np.array([line["latency"] for line in warm] or [np.nan])
    seconds, held = np.array(memory[:-1] or memory).T  # at the last line the process is ending
    late = seconds >= seconds[-1] / 6
    slope = float(np.polyfit(seconds[late], held[late], 1)[0]) * HOUR if late.sum() > 2 else np.nan
    return {
        "minutes": lines[-1]["stream_time"] / 60,
        "answers": len(lines),
        "seen": lines[-1]["seen"],
        "dropped": lines[-1]["dropped"],
        "memory_mib": [round(float(held[late][0]), 1), round(float(held[-1]), 1), round(float(held.max()), 1)],
        "memory_slope_mib_per_hour": round(slope, 3),
        "period": 1 / FPS,
        "oldest_newest_frame": round(float(ages.max()), 3),
        "oldest_since_shown": round(float(since.max()), 3),
        "older_than_1.5_periods": int((ages > 1.5 / FPS).sum()),
        "latency_p50_p99_max": [round(float(x), 3) for x in (*np.percentile(latency, [50, 99]), latency.max())],
    }


def asked(line: Line) -> float:
    """The time of day at which a question was asked: its line has that of the first token."""
    first_token = datetime.fromisoformat(line["wall_time"]).timestamp()
    return first_token - (float(line["latency"]) - float(line["age"]))


def resident(pid: int) -> float:
    """MiB that a process holds in memory; 0 once it is over."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
    except OSError:
        pass
    return 0.0


def equality(bundle: Path, copy: Path, lines: list[Line], folder: Path) -> Line:
    """Ask `storm run` about the frames of some moments, written as images of the model's size."""
    rng = np.random.default_rng(0)
    chosen = sorted(rng.choice(len(lines), min(SAMPLED, len(lines)), replace=False).tolist())
    wanted = {round(shown, 4) for at in chosen for shown in lines[at]["timestamps"]}
    frames, resize = {}, Resizer(SIZE)
    with VideoFile(copy) as video:
        for shot in video.shots():
            if round(shot.time, 4) in wanted:
                frames[round(shot.time, 4)] = resize(shot.frame)
    equal = 0
    for at in chosen:
        images = folder / str(at)
        images.mkdir()
        for index, shown in enumerate(lines[at]["timestamps"]):
            Image.fromarray(frames[round(shown, 4)]).save(images / f"{index:03}.png")
        command = [STORM, "-q", "run", bundle, images, QUESTION, "--frames", len(lines[at]["timestamps"])]
        words = [str(word) for word in (*command, "--max-tokens", 8, "--json")]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        equal += json.loads(done.stdout)["answer"] == lines[at]["answer"]
    return {"sampled": len(chosen), "equal_to_storm_run": equal, "kinds": len({lines[at]["answer"] for at in chosen})}


def report(part: str, figures: Line, **more: object) -> None:
    """Print a line."""
    print(json.dumps({"part": part, **figures, **more}), flush=True)


if __name__ == "__main__":
    main()

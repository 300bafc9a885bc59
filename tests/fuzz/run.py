"""Open mutated videos, checkpoints and bundles, each in a worker process; see docs/robustness.md.

    python tests/fuzz/run.py --videos 500 --models 200 --calibrations 200

Prints how the cases ended. Exit status 1 if one ended in anything but an answer or one StormError of one line (a
traceback, a crash of the process, no end within the time limit, memory beyond the limit), if memory or open files grew
over the cases, or if a file was left behind. A failing case is kept in --keep.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

os.environ["SVT_LOG"] = "0"  # the AV1 encoder's chatter
from corpus import write_model, write_videos
from mutate import mutate_bytes, mutate_folder, remove

LIMIT = 30.0  # seconds a case
MOST_PEAK = 1 << 30  # bytes above what the worker holds at rest
MOST_GROWTH = 96 << 20  # bytes from the first undamaged cases to the last
CHECKS = 8  # undamaged cases before and after


@dataclass
class Worker:
    """A worker process in an empty folder of its own."""

    home: Path
    process: subprocess.Popen[str] = field(init=False)

    def __post_init__(self) -> None:
        self.home.mkdir(exist_ok=True)
        self.start()

    def start(self) -> None:
        """Start, or start again."""
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("worker.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=self.home,
            env={**os.environ, "TMPDIR": str(self.home), "HOME": str(self.home)},
        )

    def run(self, case: dict[str, Any]) -> dict[str, Any]:
        """What came of a case: the worker's answer, or a hang or crash, after which another worker runs."""
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(json.dumps(case) + "\n")
        stdin.flush()
        ready, _, _ = select.select([stdout], [], [], LIMIT)
        line = stdout.readline() if ready else ""
        if line:
            result: dict[str, Any] = json.loads(line)
            return result
        self.process.kill()
        code = self.process.wait()
        self.start()
        return {"outcome": "crash" if ready else "hang", "words": f"exit status {code}"}

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


Case = tuple[str, Path, str]  # kind, path, what was done


def video_cases(seeds: list[Path], folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Damaged videos, every seed in turn."""
    whole = [path.read_bytes() for path in seeds]
    for i in range(count):
        rng = random.Random(f"video {seed} {i}")
        source = seeds[i % len(seeds)]
        path = folder / f"{i}-{source.name}"
        path.write_bytes(mutate_bytes(whole[i % len(seeds)], rng, rng.choice(whole)))
        yield "video", path, f"{source.name} damaged"


def model_cases(checkpoint: Path, bundle: Path, folder: Path, seed: int, count: int) -> Iterator[Case]:
    """Damaged bundles, and a checkpoint every third time."""
    for i in range(count):
        kind, source = ("checkpoint", checkpoint) if i % 3 == 0 else ("bundle", bundle)
        path = folder / f"{i}-{kind}"
        yield kind, path, mutate_folder(source, path, random.Random(f"model {seed} {i}"))


def calibration_cases(bundle: Path, folder: Path, seed: int, count: int) -> Iterator[Case]:
    """A bundle with a damaged calibration."""
    for i in range(count):
        path = folder / f"{i}-calibration"
        rng = random.Random(f"calibration {seed} {i}")
        yield "calibration", path, mutate_folder(bundle, path, rng, under="calibration/")


def fuzz(
    name: str, cases: Callable[[Path], Iterator[Case]], sound: list[Case], folder: Path, keep: Path | None
) -> list[str]:
    """Run the cases between undamaged ones; prints the counts, returns the failures."""
    place, failures = folder / f"{name}-cases", []
    place.mkdir()
    worker = Worker(folder / f"{name}-home")

    def rest() -> dict[str, Any]:
        for i in range(CHECKS * len(sound)):
            kind, path, _ = sound[i % len(sound)]
            result = worker.run({"kind": kind, "path": str(path), "seed": i})
            if result["outcome"] != "answer":
                failures.append(f"{path.name}, undamaged: {result['outcome']}: {result['words']}")
        return result

    before = rest()
    counts: Counter[str] = Counter()
    slowest, highest, start = 0.0, 0, time.perf_counter()
    for number, (kind, path, done) in enumerate(cases(place)):
        begun = time.perf_counter()
        names = sorted(p.name for p in path.rglob("*"))
        result = worker.run({"kind": kind, "path": str(path), "seed": number})
        slowest = max(slowest, time.perf_counter() - begun)
        outcome = result["outcome"]
        extra = result.get("peak", 0) - before["memory"]
        highest = max(highest, extra)
        if extra > MOST_PEAK:
            outcome = "memory"
        if list(worker.home.iterdir()) or sorted(p.name for p in path.rglob("*")) != names:
            outcome = "left a file"
        counts[outcome] += 1
        if outcome not in ("answer", "error"):
            failures.append(f"case {number}, {done}: {outcome} ({extra >> 20} MiB): {result['words']}")
            if keep:
                keep.mkdir(parents=True, exist_ok=True)
                shutil.copytree(path, keep / path.name) if path.is_dir() else shutil.copy(path, keep)
        remove(path)
    after = rest()
    grown, opened = after["memory"] - before["memory"], after["files"] - before["files"]
    if grown > MOST_GROWTH:
        failures.append(f"memory grew by {grown >> 20} MiB")
    if opened > 0:
        failures.append(f"{opened} files more are open")
    worker.close()
    ends = ", ".join(f"{count} {outcome}" for outcome, count in sorted(counts.items()))
    print(
        f"{name}: {sum(counts.values())} cases in {time.perf_counter() - start:.0f} s: {ends};"
        f" slowest {slowest:.1f} s, highest peak {highest >> 20} MiB, memory grew by {grown >> 20} MiB",
        flush=True,
    )
    return failures


def main() -> int:
    """Run every kind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=500)
    parser.add_argument("--models", type=int, default=200)
    parser.add_argument("--calibrations", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--checkpoint", type=Path, help="a sound checkpoint with --bundle; default: makes tiny ones")
    parser.add_argument("--bundle", type=Path, help="one with an engine and a calibration")
    parser.add_argument("--keep", type=Path, help="folder for failing cases")
    given = parser.parse_args()
    failures: list[str] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.videos:
            (folder / "videos").mkdir()
            seeds = write_videos(folder / "videos")
            sound: list[Case] = [("video", path, "") for path in seeds]
            failures += fuzz(
                "videos", lambda to: video_cases(seeds, to, given.seed, given.videos), sound, folder, given.keep
            )
        checkpoint, bundle = given.checkpoint, given.bundle
        if bundle is None and (given.models or given.calibrations):
            checkpoint, bundle = write_model(folder)
        if given.models:
            sound = [("checkpoint", checkpoint, ""), ("bundle", bundle, "")]
            failures += fuzz(
                "models",
                lambda to: model_cases(checkpoint, bundle, to, given.seed, given.models),
                sound,
                folder,
                given.keep,
            )
        if given.calibrations:
            failures += fuzz(
                "calibrations",
                lambda to: calibration_cases(bundle, to, given.seed, given.calibrations),
                [("calibration", bundle, "")],
                folder,
                given.keep,
            )
    for failure in failures:
        print(f"FAILED {failure}")
    return bool(failures)


if __name__ == "__main__":
    sys.exit(main())

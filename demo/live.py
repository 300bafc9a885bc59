"""`python -m storm_edge.demo.live BUNDLE`: `storm watch` on scenes without end, and the truth beside its answers."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from storm_edge.demo.stream import QUESTION, SceneStream

FPS, WINDOW = 4.0, 8  # frames a second, and how many of them an answer is about


def main() -> None:
    """Play the stream into `storm watch BUNDLE -` and print a line for every answer, until Ctrl-C or for --seconds."""
    parser = argparse.ArgumentParser(prog="python -m storm_edge.demo.live", description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--seconds", type=float, help="end after so many; default: never")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two questions")
    parser.add_argument("--seed", type=int, default=0, help="of the first scene")
    parser.add_argument("--engine", help="engine of the bundle; default: the newest verified one for this machine")
    given = parser.parse_args()
    scenes = SceneStream(given.seed, FPS)
    sys.exit(_watched(given.bundle, given.engine, scenes, given.every, given.seconds))


def _watched(bundle: Path, engine: str | None, scenes: SceneStream, every: float, seconds: float | None) -> int:
    """Play and print; the exit code of `storm watch`."""
    frames = None if seconds is None else max(round(seconds * FPS), 1)
    options = ["--fps", FPS, "--window", WINDOW, "--every", every, "--max-tokens", 8, "--json"]
    storm = [Path(sys.executable).parent / "storm", "-q", "watch", bundle, "-", QUESTION, *options]
    command = [str(word) for word in (*storm, *(["--engine", engine] if engine else []))]
    print(f"question: {QUESTION}", flush=True)
    stopped = threading.Event()
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as watching:
        assert watching.stdin is not None
        assert watching.stdout is not None
        player = threading.Thread(target=_play, args=(scenes, watching.stdin, frames, stopped))
        player.start()
        with suppress(KeyboardInterrupt):  # the command has got it too, and ends
            for line in watching.stdout:
                print(_told(scenes, json.loads(line)), flush=True)
        stopped.set()
        player.join()
    return watching.returncode


def _play(scenes: SceneStream, pipe: IO[bytes], frames: int | None, stopped: threading.Event) -> None:
    with suppress(OSError), pipe:
        scenes.play(pipe, frames, stopped)


def _told(scenes: SceneStream, line: dict[str, Any]) -> str:
    """An answer beside the truth, where one scene fills the window."""
    answer, times = line["answer"].strip(), line["timestamps"]
    truth = scenes.truth(times[0], times[-1])
    verdict = f"truth: {truth:<6} {'right' if answer == truth else 'wrong'}" if truth else "(a scene begins)"
    return f"{times[-1]:8.2f} s  {line['latency']:.2f} s  answer: {answer:<6} {verdict}"


if __name__ == "__main__":
    main()

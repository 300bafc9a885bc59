"""The process that attacks bundles and runs `storm` on them.

    python tests/fuzz/bundle_worker.py

A line in is JSON {"attack", "command", "seed", "want"}; "attack" null leaves the bundle sound, and "want" is what
hostile.Chance is to choose. A line out says what was done and `faults`, which is empty where everything held. The
process imports all that commands need, and every command runs in a fork of it, in a folder of its own that is also its
home. Root becomes nobody first: links of an attack lead anywhere.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import canary
import hostile
from attacks import ATTACKS
from sandbox import Child, Place, drop_root, entries, execute, left_behind

from storm_edge.cli.main import VERBS, main

PR_SET_CHILD_SUBREAPER = 36
OURS = [f"storm_edge.{name}" for name in (
    "export.build.onnxruntime.cpu", "export.build.tensorrt.build", "export.build.steps", "calibration.calibrate",
    "calibration.language", "calibration.samples", "runtime.answer.pipeline", "runtime.proof.evaluate",
)]  # fmt: skip


def commands(name: str, place: Place, clips: Path) -> list[list[str]]:
    """The command lines of a command's name."""
    b, one = str(place.bundle), ["--threads", "1"]
    video, data = str(clips / "clip.avi"), ["--data", str(clips)]
    trust = ["--trust-engines"] if TRUST else []
    build = ["build", b, "--target", "cpu", *one]
    run = ["run", b, video, "What?", "--frames", "4", "--max-tokens", "4", *one]
    calibrate = ["calibrate", b, *data, "--samples", "40", "--frames", "2", "--name", "fuzz", *one]
    return {
        "inspect": [["inspect", b]],
        "inspect-json": [["inspect", b, "--json"]],
        "files": [["verify", b, "--files"]],
        "verify": [["verify", b, *one, *trust]],
        "run": [[*run, *trust]],
        "run-untrusted": [run],
        "run-json": [[*run, "--json", *trust]],
        "eval": [["eval", b, *data, "-n", "1", "--frames", "4", *one, *trust]],
        "plan": [["plan", b, "--target", "cpu"]],
        "build": [build],
        "build-int4": [[*build, "--llm-precision", "int4"]],
        "build-int8": [[*build, "--precision", "int8", "--calibration", "noise"]],
        "build-run": [build, run],
        "rtx": [["build", b, "--target", "rtx", "--prepare-only", *one]],
        "rtx-int8": [["build", b, "--target", "rtx", "--precision", "int8", "--prepare-only", *one]],
        "calibrate": [calibrate],
        "calibrate-llm": [[*calibrate, "--llm"]],
    }[name]


def judge(case: dict[str, Any], base: Path, clips: Path, prepared: list[str], root: Path) -> dict[str, Any]:
    """Attack a copy of the bundle, run the case's command on it, and say what came of it."""
    root.mkdir()
    place = Place(root)
    shutil.copytree(base, place.bundle)
    canary.plant(place.outside)
    rng = hostile.Chance(f"hostile {case['seed']} {case['attack']}", case.get("want", ()))
    done = "nothing"
    if case["attack"]:
        done = ATTACKS[case["attack"]].run(hostile.Scene(place.bundle, place.outside, rng, prepared))
        canary.restore_times(place.outside)
    outside, inside = canary.digest(root / "outside"), entries(place.bundle)
    runs = []
    for argv in commands(case["command"], place, clips):
        run = execute(argv, place)
        runs.append(run)
        before, outside = outside, canary.digest(place.outside)
        changed = sorted(name for name in before.keys() | outside.keys() if before.get(name) != outside.get(name))
        run["faults"] += [f"changed outside/{name}" for name in changed]
        run["faults"] += [f"read outside/{name}" for name in canary.was_read(place.outside)]
        run["faults"] += [
            f"{name} has a secret" for name in (*canary.spilled(root / "said"), *canary.spilled(place.bundle))
        ]
        if run["code"] >= 0:  # what is killed cannot clean up
            run["faults"] += list(left_behind(place, inside, argv[0] in ("build", "calibrate")))
        if run["faults"] or run["code"]:
            break
        inside = entries(place.bundle)
    subprocess.run(["rm", "-rf", str(root)], check=True)  # shutil's needs a stack as deep as the folders
    most = {key: max(run[key] for run in runs) for key in ("seconds", "peak")}
    return {**case, "did": done, **runs[-1], **most}


def import_commands() -> bool:
    """Import all that commands need, so that a fork starts at once; whether engines of others need a word to run."""
    for verb in VERBS:
        importlib.import_module(f"storm_edge.cli.{verb}")
    for name in ("av", "onnx", "onnxruntime", "tokenizers", "jinja2", "safetensors.numpy", *OURS):
        importlib.import_module(name)
    run = importlib.import_module("storm_edge.cli.run").command
    return any("--trust-engines" in option.opts for option in run.params)


def _in_fork(work: Any) -> None:
    """Run something whose threads must not be in this process."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit("the sound bundle could not be made")


def _make_sound(folder: Path) -> None:
    """A bundle that somebody else made: engines built here are not those of a case's user."""
    os.environ["HOME"] = str(folder)
    from corpus import write_model, write_videos

    write_model(folder)
    (folder / "videos").mkdir()
    write_videos(folder / "videos")
    (folder / "clips").mkdir()
    for name, source in (("clip.avi", "mjpeg.avi"), ("other.avi", "mpeg4.avi")):
        shutil.copy(folder / "videos" / source, folder / "clips" / name)
    question = {"video": "clip.avi", "question": "What?", "answer": "that"}
    (folder / "clips" / "questions.jsonl").write_text(json.dumps(question) + "\n")


def _prepared(folder: Path) -> list[str]:
    """The names that builds give to files in graphs/."""
    root = folder / "prepare"
    root.mkdir()
    place = Place(root)
    shutil.copytree(folder / "bundle", place.bundle)
    before = set(os.listdir(place.bundle / "graphs"))
    for name in ("build-int4", "build-int8", "rtx", "rtx-int8"):
        for argv in commands(name, place, folder / "clips"):
            run = execute(argv, place)
            if run["code"] != 0:
                raise SystemExit(f"the sound bundle does not build: {run['said']}")
    return [f"graphs/{name}" for name in sorted(set(os.listdir(place.bundle / "graphs")) - before)]


def serve() -> None:
    """Answer cases until the input ends."""
    _in_fork(lambda: _make_sound(FOLDER))
    prepared = _prepared(FOLDER)
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    answers.write(json.dumps({"prepared": prepared}) + "\n")
    for number, line in enumerate(sys.stdin):
        case = json.loads(line)
        answers.write(
            json.dumps(judge(case, FOLDER / "bundle", FOLDER / "clips", prepared, FOLDER / str(number))) + "\n"
        )
    subprocess.run(["rm", "-rf", str(FOLDER)], check=True)


if __name__ == "__main__":
    drop_root()
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME"):  # every case has a home of its own
        os.environ.pop(name, None)
    os.environ |= {"SVT_LOG": "0", "ORT_DISABLE_TELEMETRY": "1"}
    TRUST = import_commands()
    FOLDER = Path(tempfile.mkdtemp(prefix="storm-hostile-"))
    try:
        serve()
    except Child as fork:
        sys.argv = ["storm", *fork.argv]
        main()

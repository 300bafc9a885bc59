from __future__ import annotations

import itertools
import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from storm_edge.demo.dataset import make_sample
from storm_edge.runtime.video.encode import encode_video

STORM = Path(sys.executable).parent / "storm"


def test_a_file_is_watched_to_its_end_with_a_line_for_every_answer(bundle: Path, tmp_path: Path) -> None:
    encode_video(tmp_path / "v.mp4", np.random.default_rng(0).integers(0, 256, (12, 64, 64, 3), dtype=np.uint8))
    options = ["--every", "0.5", "--fps", "8", "--window", "1s", "--max-tokens", "3", "--json"]
    done = subprocess.run(
        [STORM, "-q", "watch", bundle, tmp_path / "v.mp4", "What?", *options], capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    last = lines[-1]
    assert last["ended"]
    assert last["seen"] + last["dropped"] == 12
    assert last["stream_time"] == pytest.approx(11 / 8)
    assert last["frames"] == min(last["seen"], 8)
    assert all(0 <= line["age"] <= line["latency"] for line in lines)


@pytest.mark.parametrize(
    ("source", "options", "said"),
    [
        ("ftp://host/x", [], "ftp:// is not watched here"),
        ("nowhere.mp4", [], "there is no file nowhere.mp4"),
        ("-", ["--window", "much"], "'much' is no window"),
        ("-", ["--window", "0s"], "'0s' is no window"),
        ("-", ["--every", "0"], "0.0 is not in the range"),
        ("-", ["--fps", "-2"], "fps is -2.0"),
        ("-", ["--count", "0"], "0 is not in the range"),
        ("-", ["--record", "/proc/storm"], "cannot record in /proc/storm"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(
    bundle: Path, tmp_path: Path, source: str, options: list[str], said: str
) -> None:
    done = subprocess.run(
        [STORM, "-q", "watch", bundle, source, "What?", *options], capture_output=True, text=True, cwd=tmp_path
    )
    assert (done.returncode in (1, 2), done.stderr.count("\n")) == (True, 1)
    assert said in done.stderr


def watch(bundle: Path, source: Path, *options: object, largest: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run; no file may become larger than `largest` bytes, as on a disk that fills up."""

    def limit() -> None:
        if largest is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    command = [STORM, "-q", "watch", bundle, source, "How many objects are there?", "--max-tokens", "8", *options]
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, preexec_fn=limit)


@pytest.fixture(scope="module")
def three_then_one(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes of the demo, of which the model knows how many objects they have, a second each."""
    path = tmp_path_factory.mktemp("scenes") / "v.mp4"
    counts = {seed: make_sample(seed, frames=16, size=128, kind="count") for seed in range(40)}
    still = {
        sample.question.answer: sample
        for sample in counts.values()
        if all(thing.kind in ("left", "right", "still") for thing in sample.scene.things)
    }
    encode_video(path, np.concatenate([still["three"].frames, still["one"].frames]), fps=8)
    return path


def test_an_answer_is_printed_and_kept_when_it_changes(trained: Path, three_then_one: Path, tmp_path: Path) -> None:
    options = ["--every", "0.1", "--fps", "8", "--window", "8", "--when-changes", "--record", tmp_path / "kept"]
    done = watch(trained, three_then_one, *options)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    answers = [line.split()[-1] for line in lines]
    assert all(one != next for one, next in itertools.pairwise(answers))
    assert (answers[0], answers[-1]) == ("three", "one")
    kept = [json.loads(path.read_text()) for path in sorted((tmp_path / "kept").glob("*.json"))]
    assert [line["answer"].strip() for line in kept] == answers
    assert len(list((tmp_path / "kept").iterdir())) == 3 * len(kept)


def test_a_full_disk_is_told_and_the_watch_goes_on(trained: Path, three_then_one: Path, tmp_path: Path) -> None:
    options = ["--every", "0.5", "--fps", "8", "--window", "8", "--record", tmp_path]
    done = watch(trained, three_then_one, *options, largest=1000)
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].endswith("one")
    assert all(line.startswith("not recorded: cannot write") for line in done.stderr.splitlines())
    assert "File too large" in done.stderr
    assert not list(tmp_path.iterdir())


def test_it_ends_after_so_many_answers_each_a_line_of_words(bundle: Path, three_then_one: Path) -> None:
    done = watch(bundle, three_then_one, "--every", "0.2", "--fps", "8", "--window", "4", "--count", "3")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    for line in lines:
        assert re.match(r"20\d\d-\S+\+00:00  at \d+\.\d\d s  seen \d+, dropped \d+  \d+\.\d\d s  ", line)

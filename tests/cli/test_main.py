from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from storm_edge.cli.main import VERBS
from storm_edge.runtime.video.encode import encode_video

STORM = Path(sys.executable).parent / "storm"
LOADED = """
import sys
from storm_edge.cli import main
sys.argv = {arguments!r}
try:
    main()
except SystemExit:
    pass
print(sorted({{"torch", "onnx", "onnxruntime", "transformers", "av", "numpy"}} & set(sys.modules)))
"""


def storm(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([STORM, *map(str, arguments)], capture_output=True, text=True, cwd=cwd)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    encode_video(path, np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), dtype=np.uint8))
    return path


@pytest.mark.parametrize("verb", [None, *VERBS])
def test_help_takes_under_half_a_second_and_imports_no_engine(verb: str | None) -> None:
    command = [verb, "--help"] if verb else ["--help"]
    took = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = storm(*command)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time: what the clock shows depends on what else the machine does.
        took.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(took) < 0.5
    assert done.returncode == 0
    assert "Usage: storm" in done.stdout
    code = LOADED.format(arguments=["storm", *command])
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert loaded.stdout.splitlines()[-1] == "[]"


def test_from_init_to_an_answer(tmp_path: Path, clip: Path) -> None:
    for arguments in (
        ("init", "storm-mini", "-o", "checkpoint"),
        ("export", "checkpoint", "-o", "bundle"),
        ("build", "bundle", "--target", "cpu"),
    ):
        done = storm(*arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
    done = storm("run", "bundle", clip, "What happens?", "--frames", 8, "--max-tokens", 4, "--json", cwd=tmp_path)
    result = json.loads(done.stdout)
    assert (result["engine"], result["frames"], result["visual_tokens"], result["answer_tokens"]) == (
        "cpu-fp32",
        8,
        32,
        4,
    )
    assert result["timestamps"] == pytest.approx(list(np.floor(np.linspace(0, 15, 8) + 0.01) / 8))
    assert set(result["seconds"]) == {"load", "video decode", "vision", "temporal", "prefill", "decode"}
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoint", "bundle"}


def test_run_streams_the_answer_to_stdout_and_timings_to_stderr(bundle: Path, clip: Path) -> None:
    done = storm("run", bundle, clip, "What?", "--frames", 4, "--max-tokens", 3)
    assert done.returncode == 0
    assert "cpu-fp32: 4 frames, 16 visual tokens" in done.stderr
    assert "prefill" not in done.stdout
    assert storm("-q", "run", bundle, clip, "What?", "--frames", 4, "--max-tokens", 3).stderr == ""


def test_run_looks_at_keyframes_near_by(bundle: Path, clip: Path) -> None:
    def timestamps(*arguments: object) -> list[float]:
        done = storm("run", bundle, clip, "What?", "--frames", 4, "--max-tokens", 1, "--json", *arguments)
        times: list[float] = json.loads(done.stdout)["timestamps"]
        return times

    plain = timestamps()
    snapped = timestamps("--snap", 100)
    assert len(set(plain)) == 4
    assert set(snapped) == {plain[0]}  # the clip is one group of pictures
    assert "not in the range" in storm("run", bundle, clip, "What?", "--snap", -1).stderr


def test_verify_prints_a_row_for_every_figure(bundle: Path) -> None:
    done = storm("verify", bundle)
    assert done.returncode == 0, done.stderr
    assert "greedy tokens" in done.stdout
    result = json.loads(storm("verify", bundle, "--json").stdout)
    assert result["passed"] is True
    assert len(result["checks"]) == 40


def test_inspect_and_doctor_print_facts_and_json(bundle: Path) -> None:
    assert "frames uint8[frames, 64, 64, 3]" in storm("inspect", bundle).stdout
    facts = json.loads(storm("inspect", bundle, "--json").stdout)
    assert facts["operators"] == {"CausalConv1d": 1, "SelectiveScan": 1}
    assert "cpu" in storm("doctor").stdout
    assert "SelectiveScan" in json.loads(storm("doctor", "--json").stdout)["operators"]


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("init", "storm-9b", "-o", "x"), 2, "choose one of storm-7b"),
        (("export", "none", "-o", "x"), 1, "is no folder"),
        (("build", "none", "--target", "cpu"), 1, "storm export"),
        (("build", "none", "--target", "toaster"), 2, "choose one of cpu"),
        (("build", "BUNDLE", "--target", "cpu", "--precision", "fp8"), 1, "use --precision int8 or fp32"),
        (("build", "BUNDLE", "--target", "orin", "--precision", "fp8"), 1, "no FP8 units"),
        (("build", "none"), 2, "Missing option '--target': see `storm build --help`"),
        (("build", "BUNDLE", "--target", "cuda", "--precision", "int8"), 1, "use --precision fp16 or bf16"),
        (("verify", "none"), 1, "storm export"),
        (("run", "none", "a.mp4", "What?"), 1, "storm export"),
        (("run", "none", "a.mp4", "What?", "--temperature", "-1"), 2, "temperature"),
        (("frobnicate",), 2, "No such command"),
    ],
)
def test_every_failure_is_one_line_with_the_right_exit_code(
    arguments: tuple[str, ...], code: int, words: str, bundle: Path, tmp_path: Path
) -> None:
    done = storm(*(str(bundle) if a == "BUNDLE" else a for a in arguments), cwd=tmp_path)
    assert done.returncode == code
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    if "No such command" not in words:  # click adds its usage lines
        assert done.stderr.startswith("error: ")
        assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("before", [True, False], ids=["before the verb", "after it"])
def test_quiet_prints_results_only(before: bool, bundle: Path, checkpoint: Path, clip: Path, tmp_path: Path) -> None:
    def quietly(verb: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        return storm("-q", verb, *arguments) if before else storm(verb, *arguments, "--quiet")

    for done in (
        quietly("init", "storm-mini", "-o", tmp_path / "checkpoint"),
        quietly("build", shutil.copytree(bundle, tmp_path / "bundle"), "--target", "cpu"),
    ):
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = quietly("run", bundle, clip, "What?", "--frames", 4, "--max-tokens", 3)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("\n")


def test_json_has_the_seconds_of_every_step(bundle: Path, checkpoint: Path, tmp_path: Path) -> None:
    made = json.loads(storm("init", "storm-mini", "-o", tmp_path / "checkpoint", "--json").stdout)
    assert made["checkpoint"] == str(tmp_path / "checkpoint")
    assert "language model" in made["seconds"]
    exported = json.loads(storm("export", checkpoint, "-o", tmp_path / "bundle", "--json").stdout)
    assert {"vision graph", "temporal graph", "decoder graph"} <= set(exported["seconds"])
    assert all(seconds >= 0 for seconds in exported["seconds"].values())
    built = json.loads(storm("build", tmp_path / "bundle", "--target", "cpu", "--json").stdout)
    assert built["verified"] is True
    assert built["seconds"]
    hashed = json.loads(storm("verify", tmp_path / "bundle", "--files", "--json").stdout)
    assert (hashed["passed"], set(hashed["seconds"])) == (True, {"hash"})


def test_verify_of_files_only_needs_no_engine(bundle: Path, copy_of) -> None:  # type: ignore[no-untyped-def]
    copy = copy_of(bundle)
    shutil.rmtree(copy / "engines")
    done = storm("verify", copy, "--files")
    assert (done.returncode, done.stderr) == (0, "")
    assert "files unchanged" in done.stdout
    (copy / "graphs" / "vision.data").write_bytes(bytes((copy / "graphs" / "vision.data").stat().st_size))
    assert storm("verify", copy, "--files").returncode == 1


def test_verbose_logs_every_step_with_its_time(bundle: Path) -> None:
    for arguments in (("-v", "verify", bundle, "--files"), ("verify", bundle, "--files", "-v")):
        done = storm(*arguments)
        assert done.returncode == 0
        assert "verify: hash took " in done.stderr
        assert "took" not in done.stdout


def test_verbose_shows_the_traceback(tmp_path: Path) -> None:
    done = storm("-v", "verify", tmp_path / "none")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize("kind", ["missing", "empty", "text", "folder"])
def test_a_video_that_is_none_is_one_line(kind: str, bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "v.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind != "missing":
        path.write_text("" if kind == "empty" else "no video\n" * 100)
    done = storm("run", bundle, path, "What?")
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1


def test_a_damaged_bundle_is_one_line_in_every_verb_that_opens_it(bundle: Path, copy_of, clip: Path) -> None:  # type: ignore[no-untyped-def]
    copy = copy_of(bundle)
    data = bytearray((copy / "graphs" / "decoder.data").read_bytes())
    data[1000] ^= 1
    (copy / "graphs" / "decoder.data").write_bytes(data)
    done = storm("verify", copy)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "decoder.data is damaged" in done.stderr
    (copy / "manifest.json").write_text("{")
    for command in (
        ("verify", copy),
        ("run", copy, clip, "What?"),
        ("inspect", copy),
        ("build", copy, "--target", "cpu"),
    ):
        done = storm(*command)
        assert (done.returncode, done.stderr.count("\n")) == (1, 1)
        assert "is damaged" in done.stderr

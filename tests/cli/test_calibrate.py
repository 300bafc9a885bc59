from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from storm_edge.cli.build import command as build
from storm_edge.cli.calibrate import command as calibrate
from storm_edge.runtime.errors import BuildError, UsageError
from storm_edge.runtime.video.encode import encode_video


def run(command: click.Command, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments], obj={"quiet": False, "verbose": False})


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    folder = tmp_path / "my videos"
    folder.mkdir()
    for i in range(2):
        noise = np.random.default_rng(i).integers(0, 256, (40, 8, 8, 3), dtype=np.uint8)
        encode_video(folder / f"{i}.mp4", noise.repeat(8, axis=1).repeat(8, axis=2))
    return folder


def test_from_videos_to_a_verified_int8_engine(videos: Path, bundle: Path, copy_of: Callable[[Path], Path]) -> None:
    root = copy_of(bundle)
    made = run(calibrate, root, "--data", videos, "--name", "mine", "--samples", 8, "--frames", 8, "--json")
    assert made.exit_code == 0, made.exception
    report = json.loads(made.stdout)
    assert (report["calibration"], report["samples"], report["frames"]) == ("mine", 8, 64)
    built = run(build, root, "--target", "cpu", "--precision", "int8", "--calibration", "mine")
    assert built.exit_code == 0, built.exception
    assert "engines/cpu-int8-llm-fp32: " in built.stdout
    assert "warning" not in built.output


def test_a_wrong_folder_or_name_is_refused_before_anything_is_loaded(videos: Path, bundle: Path) -> None:
    for arguments, error, words in (
        (["--data", "absent"], UsageError, "absent is no folder"),
        (["--data", str(videos)], UsageError, "'my videos' cannot name a calibration"),
        (["--data", str(videos), "--samples", "4", "--name", "a"], UsageError, "4 samples are too few"),
    ):
        failed = run(calibrate, bundle, *arguments)
        assert isinstance(failed.exception, error)
        assert words in str(failed.exception)
    failed = run(build, bundle, "--target", "cpu", "--precision", "int8")
    assert isinstance(failed.exception, BuildError)


def test_layers_are_ranked_and_norms_smoothed_from_the_command_line(
    videos: Path, bundle: Path, copy_of: Callable[[Path], Path]
) -> None:
    root = copy_of(bundle)
    given = ["--data", videos, "--name", "mine", "--samples", 8, "--frames", 4, "--budget", "inf"]
    made = run(calibrate, root, *given, "--smooth", "0.5", "--analyze", "--max-loss", 0.015, "--precision", "fp8")
    assert made.exit_code == 0, made.exception
    first, second, third, fourth = made.stdout.splitlines()
    assert first.startswith(f"{root}/calibration/mine: 21 tensors in 8 clips")
    assert "of 10 norms smoothed" in second or "nothing smoothed" in second
    assert "of 31 layers quantized" in third
    assert "relative error of the visual tokens" in third
    assert "projector.linear" in fourth
    report = json.loads((root / "calibration" / "mine" / "sensitivity.json").read_text())
    assert (report["scheme"], report["max_loss"]) == ("fp8", 0.015)
    with_questions = [*given, "--analyze", "--questions", 1, "--json"]
    failed = run(calibrate, root, *with_questions)
    assert isinstance(failed.exception, UsageError)
    assert "has no .jsonl file" in str(failed.exception)
    (videos / "q.jsonl").write_text('{"video": "1.mp4", "question": "What moves?", "answer": "noise"}\n')
    answered = json.loads(run(calibrate, root, *with_questions).stdout)["sensitivity"]
    assert (answered["loss"], answered["clips"]) == ("divergence of the answers (nats)", 1)


def test_the_language_model_is_observed_and_scaled_from_the_command_line(
    videos: Path, bundle: Path, copy_of: Callable[[Path], Path]
) -> None:
    root = copy_of(bundle)
    arguments = ("--data", videos, "--name", "llm", "--samples", 8, "--frames", 8, "--llm", "--awq", "--threads", 1)
    made = run(calibrate, root, *arguments)
    assert made.exit_code == 0, made.exception
    assert "int4 weights put the answers" in made.stdout
    where = ("--target", "h100", "--precision", "fp16", "--llm-precision", "fp8", "--simulate", "--allow-mismatch")
    built = run(build, root, *where)
    assert built.exit_code == 0, built.exception
    assert "engines/h100-fp16-llm-fp8-simulated: " in built.stdout


def test_words_that_have_no_effect_are_refused(bundle: Path) -> None:
    for arguments, words in (
        (["--max-loss", "0.1"], "--max-loss says how to analyze: give --analyze as well"),
        (["--questions", "4"], "--questions says how to analyze"),
        (["--precision", "fp8"], "--precision says how to analyze"),
        (["--smooth", "1.5"], "--smooth 1.5 is no number from 0 to 1"),
        (["--smooth", "much"], "--smooth much is no number from 0 to 1"),
    ):
        failed = run(calibrate, bundle, "--data", "demo", *arguments)
        assert isinstance(failed.exception, UsageError)
        assert words in str(failed.exception)
    for loss in ("-1", "nan", "little"):
        failed = run(calibrate, bundle, "--data", "demo", "--analyze", "--max-loss", loss)
        assert isinstance(failed.exception, UsageError)
        assert f"--max-loss {loss} is no loss: give a number from 0 on, or auto" in str(failed.exception)
    assert run(calibrate, bundle, "--data", "demo", "--budget", "0").exit_code == 2


def test_help_tells_the_least_samples_and_frames_that_are_enough(bundle: Path) -> None:
    words = " ".join(run(calibrate, "--help").stdout.split())
    least = re.search(r"at least (\d+), in which (\d+) frames differ", words)
    assert least is not None
    failed = run(calibrate, bundle, "--data", "demo", "--samples", int(least[1]) - 1)
    assert isinstance(failed.exception, UsageError)
    assert f"take at least {least[1]}" in str(failed.exception)
    failed = run(calibrate, bundle, "--data", "demo", "--samples", least[1], "--frames", 3)
    assert "too few" in str(failed.exception) or f"calibrate on at least {least[2]}" in str(failed.exception)


def test_auto_says_which_loss_verification_accepts(videos: Path, bundle: Path, copy_of: Callable[[Path], Path]) -> None:
    given = ["--data", videos, "--name", "mine", "--samples", 8, "--frames", 4]
    made = run(calibrate, copy_of(bundle), *given, "--analyze", "--max-loss", "auto")
    assert made.exit_code == 0, made.exception
    assert re.search(r"^the most that verification accepts is --max-loss 0\.\d+$", made.stdout, re.MULTILINE)

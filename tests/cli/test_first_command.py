"""INT8 and fp8 of the project's own demo, as the documentation says it: calibrate, build, verified."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path

import click
from click.testing import CliRunner, Result

from storm_edge.cli.build import command as build
from storm_edge.cli.calibrate import command as calibrate
from storm_edge.cli.export import command as export
from storm_edge.runtime.bundle.calibration import find_calibration
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import ParityError

ROOT = Path(__file__).parents[2]
ENGINES = (("cpu", "int8", ()), ("h100", "fp8", ("--simulate",)))


def run(command: click.Command, *arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments], obj={"quiet": False, "verbose": False})


def make(*words: str) -> subprocess.CompletedProcess[str]:
    given = ["make", "--no-print-directory", *words]
    return subprocess.run(given, cwd=ROOT, capture_output=True, text=True, check=False)


def commands(*words: str) -> list[list[str]]:
    """What make would run of storm, without the program's name."""
    lines = make("-n", *words, "OUT=absent").stdout.replace("\\\n", " ").splitlines()
    return [shlex.split(line)[1:] for line in lines if "/storm " in line]


def test_the_demo_with_its_own_clips_ends_in_a_verified_engine(tmp_path: Path) -> None:
    """As `make engine PRECISION=int8` runs it."""
    steps = commands("engine", "PRECISION=int8")
    assert [step[0] for step in steps] == ["export", "calibrate", "build"]
    bundle = tmp_path / "bundle"
    for (name, *given), command in zip(steps, (export, calibrate, build), strict=True):
        done = run(command, *[x.replace("absent/bundle", str(bundle)) for x in given])
        assert done.exit_code == 0, (name, done.exception)
        if name == "calibrate":
            assert re.search(r"CPU int8 \d\d\.\d% \(\d+ of 25 layers\)", done.stdout.splitlines()[-1])
    assert "40 of 40 checks passed" in done.stdout
    report = json.loads((bundle / "calibration" / "demo" / "report.json").read_text())["quantized"]
    assert report["uint8"]["multiplications"] > 0.6  # of a model whose reference clips are of the kind calibrated on
    assert "layers.0.mixer.out_proj" in report["uint8"]["left"]
    for target, precision, more in ENGINES:
        assert run(build, bundle, "--target", target, "--precision", precision, *more).exit_code == 0


def test_advice_after_a_failure_in_int8_and_in_fp8_leads_to_an_engine_that_passes(
    trained: Path, copy_of: Callable[[Path], Path]
) -> None:
    """Of the demo recorded on synthetic frames; the command that is advised is that of the first time, as it stands."""
    bundle = copy_of(trained)
    few = ("--samples", 64)
    assert run(calibrate, bundle, "--data", "demo", *few, "--budget", "inf").exit_code == 0
    advised = set()
    for target, precision, more in ENGINES:
        failed = run(build, bundle, "--target", target, "--precision", precision, *more)
        assert isinstance(failed.exception, ParityError)
        (advice,) = re.findall(r"`storm calibrate (.*?)`", str(failed.exception))
        advised.add(advice.replace("DIR", "demo"))
    (advice,) = advised
    assert advice == f"{bundle} --data demo --name demo --budget 0.8"
    done = run(calibrate, *shlex.split(advice), *few)
    assert done.exit_code == 0, done.exception
    for target, precision, more in ENGINES:
        built = run(build, bundle, "--target", target, "--precision", precision, *more)
        assert built.exit_code == 0, built.exception
    schemes = json.loads((bundle / "calibration" / "demo" / "report.json").read_text())["quantized"]
    found = find_calibration(Bundle.open(bundle), None)
    for scheme, words in schemes.items():
        kept = {x.module for of in found.layers.stages.values() for x in of.values() if not x.quantized_in(scheme)}
        assert kept == set(words["left"])
        assert 0.2 < words["multiplications"] < 1
        assert words["limits_used"] <= 0.8


def test_make_calibrates_before_an_engine_that_needs_it_and_only_then() -> None:
    assert [step[0] for step in commands("engine")] == ["export", "build"]
    assert [step[0] for step in commands("engine", "PRECISION=fp32", "LLM_PRECISION=int8")] == ["export", "build"]
    assert commands("calibrate")[1] == ["calibrate", "absent/bundle", "--data", "demo", "--name", "demo"]
    words = ("CHECKPOINT=mine", "BUNDLE=b", "TARGET=h100", "PRECISION=fp8", "LLM_PRECISION=fp8", "DATA=my/videos/")
    calibrated, built = commands("engine", *words, "-o", "mine/config.json")[1:]
    assert calibrated == ["calibrate", "b", "--data", "my/videos/", "--name", "videos-llm", "--llm"]
    assert built[-2:] == ["--calibration", "videos-llm"]


def test_make_without_data_says_what_to_give_before_anything_is_exported() -> None:
    for goal in (("engine", "PRECISION=int8"), ("calibrate",)):
        failed = make(*goal, "CHECKPOINT=mine", "OUT=absent")
        assert failed.returncode == 2
        line = failed.stderr.splitlines()[0]
        assert line.startswith("error: int8 and fp8 are calibrated on videos like those the engine will see")
        assert line.endswith("name a folder of them, DATA=DIR")
        assert "storm export" not in failed.stdout


def test_an_engine_of_another_checkpoint_takes_the_calibration_that_is_there(tmp_path: Path) -> None:
    ranges = tmp_path / "calibration" / "mine" / "ranges.safetensors"
    ranges.parent.mkdir(parents=True)
    ranges.touch()
    (tmp_path / "manifest.json").touch()
    words = ("CHECKPOINT=mine", f"BUNDLE={tmp_path}", "PRECISION=int8", "-o", "mine/config.json")
    assert [step[0] for step in commands("engine", *words)] == ["build"]

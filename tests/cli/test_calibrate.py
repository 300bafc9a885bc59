from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result

from storm_edge.cli.build import command as build
from storm_edge.cli.calibrate import command as calibrate
from storm_edge.demo.encode import encode_video
from storm_edge.runtime.errors import BuildError, UsageError


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

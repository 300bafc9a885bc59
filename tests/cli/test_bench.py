from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from storm_edge.cli.bench import command
from storm_edge.runtime.bench import limits
from storm_edge.runtime.errors import UsageError, VideoError


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "SECONDS", 0.0)
    monkeypatch.setattr(limits, "SIDE", 256)
    monkeypatch.setattr(limits, "COPIED", 1 << 20)


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(command, [str(a) for a in arguments], obj={"quiet": False, "verbose": False})


def test_every_stage_of_every_length_is_measured_and_drawn(bundle: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib is not installed: run `make setup`")
    picture = tmp_path / "bench.png"
    done = bench(bundle, "--frames", "16,8", "--repeats", 1, "--tokens", 3, "--json", "--plot", picture)
    assert done.exit_code == 0, done.exception
    report = json.loads(done.stdout)
    assert report["engine"] == "cpu-fp32"
    assert [clip["frames"] for clip in report["clips"]] == [8, 16]
    assert [clip["visual_tokens"] for clip in report["clips"]] == [32, 64]
    for clip in report["clips"]:
        assert clip["tokens"] == 4 * clip["visual_tokens"]
        assert clip["peak_memory_bytes"] > 0
        for stage in ("vision", "temporal", "prefill", "decode"):
            assert clip[stage]["seconds"]["median"] > 0
            assert clip[stage]["flops_per_second"] > 0
            assert clip[stage]["share_of_limit"] > 0
    assert set(report["limits"]) == {"flops_per_second", "bytes_per_second", "exponentials_per_second"}
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_person_reads_a_table(bundle: Path) -> None:
    done = bench(bundle, "--frames", "8", "--repeats", 1, "--tokens", 2)
    assert done.exit_code == 0, done.exception
    lines = done.stdout.splitlines()
    assert lines[0].startswith("engine cpu-fp32 on ")
    assert "GFLOP/s in fp32" in lines[1]
    assert [line.split("  ")[0] for line in lines[5:]][:5] == [
        "video decode",
        "vision",
        "temporal",
        "prefill",
        "decode, each token",
    ]


@pytest.mark.parametrize("frames", ["", "8,", "0", "8,-1", "many", "8;16", "99999999999"])
def test_frames_that_are_no_lengths_are_refused(frames: str, bundle: Path) -> None:
    done = bench(bundle, "--frames", frames)
    assert done.exit_code == 2


def test_a_clip_beyond_the_model_is_refused_before_anything_is_measured(bundle: Path) -> None:
    done = bench(bundle, "--frames", "8,100000")
    assert isinstance(done.exception, UsageError)
    assert "take fewer frames" in str(done.exception)


def test_a_missing_video_is_told(bundle: Path, tmp_path: Path) -> None:
    assert isinstance(bench(bundle, "--frames", "8", "--video", tmp_path / "none.mp4").exception, VideoError)


@pytest.mark.parametrize("options", [("--against", "torch"), ("--checkpoint", "here")])
def test_pytorch_needs_its_checkpoint(options: tuple[str, ...], bundle: Path) -> None:
    assert isinstance(bench(bundle, *options).exception, UsageError)


def test_matplotlib_is_missed_before_anything_is_measured(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    done = bench(bundle, "--plot", "bench.png")
    assert isinstance(done.exception, UsageError)
    assert "storm-edge[bench]" in str(done.exception)

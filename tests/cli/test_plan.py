from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from storm_edge.cli.plan import command, seconds
from storm_edge.runtime.errors import CheckpointError, TargetError, UsageError


def plan(*arguments: object) -> Result:
    return CliRunner().invoke(command, [*map(str, arguments)])


def test_a_preset_is_planned_with_a_row_for_each_stage() -> None:
    done = plan("storm-7b", "--target", "orin", "--frames", 128, "--precision", "int8", "--llm-precision", "int4")
    assert done.exit_code == 0, done.output
    lines = done.output.splitlines()
    assert lines[0].startswith("storm-7b on AGX Orin 64GB: 128 frames")
    assert [line.split()[0] for line in lines[4:8]] == ["vision", "temporal", "prefill", "decode"]
    assert ": fits" in done.output
    assert "build with --max-frames 128; that makes --max-length 9216" in done.output


def test_the_price_of_a_longer_cache_is_said_in_memory_and_time() -> None:
    done = plan("storm-7b", "--target", "orin", "--frames", 128, "--llm-precision", "int4")
    assert "1,024 positions more of --max-length take 56 MiB and 0.37 ms of every token, used or not" in done.output
    assert "more of --max-length" not in plan("storm-mini", "--target", "cpu", "--memory", 16).output


def test_a_language_model_on_two_gpus_takes_half_the_memory_of_each_and_the_hint_names_the_runner() -> None:
    def prefill(*arguments: object) -> dict[str, float]:
        done = plan("storm-7b", "--target", "h100", "--frames", 128, "--json", *arguments)
        return json.loads(done.output)["stages"]["prefill"]

    one, two = (prefill("--llm", "tensorrt-llm", "--tp", tp) for tp in (1, 2))
    table = 2 * 152064 * 3584
    assert two["weights"] - table == (one["weights"] - table) / 2
    assert two["kv_cache"] == one["kv_cache"] / 2
    assert one["weights"] == prefill()["weights"] + table
    # Weights of 8 bits are multiplied in 16.
    int8 = prefill("--llm", "tensorrt-llm", "--llm-precision", "int8")
    assert int8["weights"] < one["weights"]
    assert int8["expected"] == pytest.approx(one["expected"], rel=0.01)
    done = plan("storm-7b", "--target", "h100", "--frames", 64, "--llm", "tensorrt-llm", "--tp", 2)
    assert "language model bf16 by tensorrt-llm on 2 GPUs" in done.output
    assert "build with --max-frames 64 --llm tensorrt-llm --tp 2" in done.output


def test_what_would_make_it_fit_is_said() -> None:
    done = plan("storm-7b", "--target", "orin", "--memory", 16, "--frames", 128, "--llm-precision", "bf16")
    assert "DOES NOT FIT\n  fits with --llm-precision int4" in done.output


def test_json_has_bytes_flops_and_seconds_of_every_stage() -> None:
    done = plan("storm-7b", "--target", "l4", "--json")
    facts = json.loads(done.output)
    assert facts["fits"] is True
    assert facts["device"]["memory"] == 24
    assert set(facts["stages"]) == {"vision", "temporal", "prefill", "decode"}
    for stage in facts["stages"].values():
        assert stage["flops"] > 0
        assert stage["expected"] > stage["floor"] > 0
    stages = facts["stages"].values()
    shared = max(s["activations"] + s["workspace"] for s in stages)
    assert facts["peak"] == sum(s[k] for s in stages for k in ("weights", "outputs", "kv_cache")) + shared


def test_a_checkpoint_needs_only_its_config_json(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "storm"}')
    for source in (tmp_path, tmp_path / "config.json"):
        assert plan(source, "--target", "h200").exit_code == 0


def test_a_live_video_has_a_line_of_frames_a_second_and_latency() -> None:
    arguments = ("storm-7b", "--target", "orin", "--frames", 32, "--precision", "int8", "--llm-precision", "int4")
    done = plan(*arguments, "--live", "--every", 10)
    (live,) = (line for line in done.output.splitlines() if line.startswith("live: "))
    facts = json.loads(plan(*arguments, "--live", "--every", 10, "--json").output)["live"]
    assert f"live: {facts['fps_unasked']:.1f} frames a second while nobody asks" in live
    assert f"to its first word {facts['first_token']:.1f} s" in live
    assert f"asked every 10 s, with 16 tokens an answer: {facts['fps']:.1f} frames a second" in done.output
    assert "no time is left for frames" in plan(*arguments, "--live", "--every", 0.5).output
    assert "live: no times" in plan("storm-mini", "--target", "cpu", "--live").output
    assert "live" not in json.loads(plan(*arguments, "--json").output)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (("storm-9b", "--target", "orin"), UsageError),
        (("storm-7b", "--target", "toaster"), UsageError),
        (("storm-7b", "--target", "orin", "--precision", "fp8"), TargetError),
        (("storm-7b", "--target", "orin", "--memory", "12"), TargetError),
        (("storm-7b", "--target", "orin", "--llm", "tensorrt-llm"), TargetError),
        (("storm-7b", "--target", "a100", "--llm", "tensorrt-llm", "--llm-precision", "fp8"), TargetError),
        (("storm-7b", "--target", "h100", "--llm", "tensorrt-llm", "--tp", 8), TargetError),
        (("storm-7b", "--target", "h100", "--tp", 2), UsageError),
        (("storm-7b", "--target", "orin", "--live", "--every", "0"), UsageError),
        ((".", "--target", "orin"), CheckpointError),
    ],
)
def test_refusals_are_errors_for_the_user(
    arguments: tuple[str, ...], error: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = plan(*arguments)
    assert isinstance(done.exception, error)


def test_times_have_the_unit_that_suits_them() -> None:
    assert [seconds(x) for x in (None, 0.00123, 0.345, 12.34)] == ["-", "1.2 ms", "345 ms", "12.3 s"]


WITHOUT = """
import sys
for name in ("torch", "transformers", "onnx", "onnxscript", "onnxruntime"):
    sys.modules[name] = None  # importing it now raises ImportError
from storm_edge.cli import main
sys.argv = ["storm", "plan", "storm-7b", "--target", "orin"]
main()
"""


def test_planning_needs_no_torch_no_onnx_and_no_engine() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "peak" in done.stdout

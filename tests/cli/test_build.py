from __future__ import annotations

import contextlib
import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from storm_edge.cli.build import command
from storm_edge.runtime.bundle.engine import read_engine
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.errors import StormError, TargetError, UsageError

Copy = Callable[[Path], Path]
STORM = Path(sys.executable).parent / "storm"


def build(*arguments: object) -> Result:
    switches = {"verbose": False, "quiet": False}
    return CliRunner().invoke(command, [*map(str, arguments)], obj=switches)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (("toaster",), UsageError, "choose one of cpu, cuda, rtx"),
        (("cpu", "--precision", "fp7"), UsageError, "there is no precision 'fp7': use --precision fp32 or int8"),
        (("cpu", "--max-frames", 3), UsageError, "--max-frames is for TensorRT targets: leave it out for cpu"),
        (
            ("cpu", "--int4-block", 64),
            UsageError,
            "is for int4 weights, this language model's are fp32",
        ),
        (("cpu", "--calibration", "x"), UsageError, "--calibration x: fp32 and fp32 need none"),
        (("cpu", "--simulate"), UsageError, "--simulate stands in for TensorRT: build cpu without it"),
        (("h100", "--simulate", "--int4-block", 64), UsageError, "this language model's are bf16"),
        (("h100", "--simulate", "--workspace", 1), UsageError, "--workspace is for what TensorRT compiles"),
        (("orin", "--workspace", "nan"), UsageError, "--workspace nan is no size"),
        (("orin", "--prepare-only", "--workspace", 1), UsageError, "give it where --prepare-only is left out"),
        (("rtx", "--prepare-only", "--sm", 86), UsageError, "--sm is for compiling"),
        (("cpu", "--sm", 86), UsageError, "--sm is for TensorRT targets"),
        (("orin", "--sm", 87), TargetError, "leave --sm out, orin is always SM 87"),
        (("rtx", "--sm", "fast"), UsageError, "'fast' is no compute capability"),
        (("rtx", "--sm", "90"), TargetError, "does not compile for SM 90"),
        (("orin", "--precision", "fp8"), TargetError, "no FP8 units"),
    ],
)
def test_options_that_a_target_has_no_use_for_are_refused(
    arguments: tuple[object, ...], error: type[StormError], words: str, bundle: Path
) -> None:
    done = build(bundle, "--target", *arguments)
    assert isinstance(done.exception, error)
    assert words in str(done.exception)


@pytest.mark.skipif(importlib.util.find_spec("tensorrt_rtx") is None, reason="TensorRT for RTX is not installed")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_build_that_is_killed_while_it_compiles_leaves_the_engine_before_it(
    how: signal.Signals, bundle: Path, copy_of: Copy
) -> None:
    root = copy_of(bundle)
    before = build(root, "--target", "rtx", "--prepare-only", "--stages", "vision", "--json")
    assert before.exit_code == 0, before.exception
    arguments = ("build", root, "--target", "rtx", "--stages", "vision", "--sm", "86,89,120")
    process = subprocess.Popen([STORM, *arguments], stderr=subprocess.PIPE)
    while (builder := _builder(process.pid)) is None:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(how)
    process.communicate()
    while _runs(builder):
        time.sleep(0.01)
    opened = Bundle.open(root)
    assert read_engine(opened, "rtx-fp16-llm-bf16").state == "prepared"
    done = subprocess.run([STORM, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert read_engine(opened, "rtx-fp16-llm-bf16").sms == [86, 89, 120]
    assert [p.name for p in (root / "engines").iterdir() if p.name.startswith(".")] == []


def _builder(parent: int) -> str | None:
    """The child process that compiles, if it has begun."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        with contextlib.suppress(OSError):
            if b"compile_child" in Path(f"/proc/{child}/cmdline").read_bytes():
                return child
    return None


def _runs(process: str) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_preparing_for_jetpack_62_prepares_the_whole_model(bundle: Path, copy_of: Copy) -> None:
    root = copy_of(bundle)
    arguments = (root, "--target", "orin", "--tensorrt", "10.3", "--max-length", 512, "--int4-block", 32)
    done = build(*arguments, "--prepare-only")
    device = f"storm build {root} --target orin --precision fp16 --llm-precision int4 --max-length 512 --int4-block 32"
    assert f"prepared for TensorRT 10.3, not compiled; on the device: `{device}`." in done.stdout
    done = build(*arguments, "--prepare-only", "--json")
    assert done.exit_code == 0, done.exception
    record = json.loads(done.stdout)
    assert (record["name"], record["runners"]["decoder"]) == ("orin-fp16-llm-int4", "onnxruntime-cuda")
    assert set(record["graphs"]) == {"vision", "temporal", "decoder"}
    assert "decoder" in {row["stage"] for row in record["verification"]}

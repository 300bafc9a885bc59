from __future__ import annotations

import importlib.metadata
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from storm_edge.export.build.tensorrt_llm import compile as compiling
from storm_edge.export.build.tensorrt_llm.compile import Limits, build_command, compile_checkpoint, limits
from storm_edge.runtime.config.presets import preset
from storm_edge.runtime.errors import BuildError, TargetError

FLAGS: dict[str, list[str] | None] = json.loads(
    (Path(__file__).parents[3] / "runtime" / "llm" / "tensorrt_llm_recorded.json").read_text()
)["trtllm-build"]


def test_the_limits_come_from_the_token_budget() -> None:
    config = preset("storm-7b")
    found = limits(config, 128, None)
    assert found == Limits(32 * 256, 32 * 256 + 1024, 32 * 256 + 2048)
    assert limits(config, 128, 16384) == Limits(8192, 16384 - 1024, 16384)
    assert limits(config, 4, 512) == Limits(256, 512 - 64, 512)


@pytest.mark.parametrize(("frames", "length"), [(128, 8192), (1024, None), (4, 40000)])
def test_a_budget_that_does_not_fit_is_refused(frames: int, length: int | None) -> None:
    with pytest.raises(TargetError, match="give fewer --max-frames, or another --max-length"):
        limits(preset("storm-7b"), frames, length)


@pytest.mark.parametrize("fp8_cache", [False, True])
def test_every_word_of_the_command_is_one_that_trtllm_build_knows(fp8_cache: bool) -> None:
    words = build_command(Path("a"), Path("b"), Limits(100, 200, 300), 2, fp8_cache)
    given = dict(zip(words[1::2], words[2::2], strict=True))
    assert words[0] == "trtllm-build"
    for flag, value in given.items():
        assert flag in FLAGS
        taken = FLAGS[flag]
        assert taken is None or value in taken
    assert (given["--max_multimodal_len"], given["--max_num_tokens"], given["--workers"]) == ("400", "200", "2")
    assert ("--use_fp8_context_fmha" in given) == fp8_cache


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program in place of trtllm-build that says and does what `script` holds."""
    path = tmp_path / "program"
    path.write_text(f"#!{sys.executable}\nexec(open({str(tmp_path / 'script')!r}).read())\n")
    path.chmod(0o755)
    monkeypatch.setattr(compiling, "require_compiler", lambda _: ("1.2.1", str(path)))
    return tmp_path / "script"


def test_progress_is_shown_and_everything_is_logged(program: Path, tmp_path: Path) -> None:
    program.write_text(
        "import os, sys\n"
        "os.mkdir(sys.argv[2])\n"
        "print('[11/24/2026-10:00:00] [TRT-LLM] [I] Build TensorRT engine Unnamed Network 0', flush=True)\n"
        "print('something else', file=sys.stderr)\n"
        "open(sys.argv[2] + '/config.json', 'w').write('{}')\n"
    )
    steps: list[str] = []
    out, log = tmp_path / "out", tmp_path / "compile.log"
    compile_checkpoint(["trtllm-build", "--output_dir", str(out)], out, log, steps.append)
    assert steps == ["Build TensorRT engine Unnamed Network 0"]
    said = log.read_text().splitlines()
    assert said[0] == f"trtllm-build --output_dir {out}"
    assert "something else" in said
    assert json.loads((out / "config.json").read_text()) == {}


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("print('[TRT] [E] Error Code 2: OutOfMemory (Requested size was 1 bytes.)'); raise SystemExit(1)", "ran out"),
        ("print('CUDA error: no kernel image is available for execution'); raise SystemExit(1)", "no such kernels"),
        ("print('RuntimeError: Required but not provided tensors:{x}'); raise SystemExit(1)", "another version's"),
        ("print('[TRT-LLM] [E] heads must divide'); print('bye'); raise SystemExit(3)", "heads must divide"),
        ("import os; os.kill(os.getpid(), 9)", "ended by signal 9"),
        ("print('done')", "done"),  # without an engine
    ],
)
def test_a_failure_is_explained_and_leaves_nothing(script: str, said: str, program: Path, tmp_path: Path) -> None:
    out, log = tmp_path / "out", tmp_path / "compile.log"
    out.mkdir()
    program.write_text(script)
    with pytest.raises(BuildError, match=f"trtllm-build failed: .*{said}.*{log}"):
        compile_checkpoint(["trtllm-build", "--output_dir", str(out)], out, log, lambda _: None)
    assert not out.exists()


SLEEPS = "import os, time; print(f'[TRT] [I] {os.getpid()}', flush=True); time.sleep(60)"


def is_gone(pid: int) -> bool:
    for _ in range(100):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def test_a_compiler_ends_with_the_command_that_is_stopped(program: Path, tmp_path: Path) -> None:
    program.write_text(SLEEPS)
    pids: list[int] = []

    def stop(step: str) -> None:
        pids.append(int(step))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compile_checkpoint(["trtllm-build"], tmp_path / "out", tmp_path / "log", stop)
    assert is_gone(pids[0])


def test_a_compiler_ends_with_the_command_that_is_killed(program: Path, tmp_path: Path) -> None:
    program.write_text(SLEEPS)
    code = (
        "from pathlib import Path; from storm_edge.export.build.tensorrt_llm import compile as c\n"
        f"c.require_compiler = lambda _: ('', {str(tmp_path / 'program')!r})\n"
        f"c.compile_checkpoint(['x'], Path('out'), Path({str(tmp_path / 'log')!r}), lambda s: print(s, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as command:
        assert command.stdout is not None
        pid = int(command.stdout.readline())
        command.kill()
    assert is_gone(pid)


def test_where_it_cannot_run_the_command_is_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    command = build_command(tmp_path / "a b", tmp_path / "out", Limits(1, 2, 3), 1, False)
    with pytest.raises(
        TargetError, match=r"is not installed.* build again, or run `trtllm-build .*'.*/a b' --output_dir"
    ):
        compile_checkpoint(command, tmp_path / "out", tmp_path / "log", lambda _: None)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: "1.2.1")
    with pytest.raises(TargetError, match="trtllm-build is not on the path: activate tensorrt_llm's environment"):
        compile_checkpoint(command, tmp_path / "out", tmp_path / "log", lambda _: None)
    assert not (tmp_path / "log").exists()

"""Compiling a checkpoint with trtllm-build where the GPU is: its command, its progress, its log, its failures."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.config.sizes import PAGED_CHUNK
from storm_edge.runtime.errors import BuildError, TargetError
from storm_edge.runtime.llm.tensorrt_llm_package import NEEDED, PACKAGE, require_package
from storm_edge.runtime.machine.packages import installed

PROGRAM = "trtllm-build"
# Runs a program that ends with the process that started it; 1 is PR_SET_PDEATHSIG of Linux' prctl.
_ENDING = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); os.execv(sys.argv[1], sys.argv[1:])"
_BATCH = 4  # requests at once: a question, and workers beside it
_TEXT = 1024  # tokens of template and question, and again of the answer
# What stands in the log, and what that means.
_REASONS = (
    (r"out of memory|OutOfMemory|std::bad_alloc", "the memory ran out: free the GPU, or give fewer --max-frames"),
    (r"no kernel image|[Uu]nsupported SM|not supported on this (GPU|architecture)", "this GPU has no such kernels"),
    (r"driver version is insufficient|CUDA driver", "the CUDA driver is older than the package wants: update it"),
    (
        r"Required but not provided tensors",
        "the checkpoint is another version's: build again with --prepare-only first",
    ),
    (r"No space left on device", "the disk is full: free some space"),
)


@dataclass(frozen=True)
class Limits:
    """The largest request: its visual tokens, all its input, and input and answer together."""

    visual: int
    input: int
    sequence: int


def limits(config: StormConfig, max_frames: int, max_length: int | None) -> Limits:
    """What clips of `max_frames` frames take, with room for text; `max_length` tokens in all where it is given.

    Raises TargetError where that is more than the model was made for, or leaves no room for a question.
    """
    visual, most = config.visual_tokens(max_frames), config.llm.max_position_embeddings
    sequence = max_length or min(most, visual + 2 * _TEXT)
    answer = min(_TEXT, sequence // 8)
    if not visual + answer < sequence <= most:
        raise TargetError(
            f"{max_frames} frames make {visual} visual tokens, which with question and answer do not fit {sequence} of"
            f" the {most} that the language model was made for: give fewer --max-frames, or another --max-length."
        )
    return Limits(visual, sequence - answer, sequence)


def build_command(checkpoint: Path, output: Path, wanted: Limits, tp: int, fp8_cache: bool) -> list[str]:
    """trtllm-build's words for a checkpoint: every limit of the runtime, and what is not its default in all of 1.2."""
    words = [PROGRAM, "--checkpoint_dir", str(checkpoint), "--output_dir", str(output), "--workers", str(tp)]
    for name, number in (
        ("max_batch_size", _BATCH),
        ("max_input_len", wanted.input),
        ("max_seq_len", wanted.sequence),
        ("max_num_tokens", min(PAGED_CHUNK, wanted.input)),
        ("max_multimodal_len", _BATCH * wanted.visual),  # the table of all requests together
    ):
        words += [f"--{name}", str(number)]
    words += ["--gemm_plugin", "auto", "--kv_cache_type", "paged", "--use_paged_context_fmha", "enable"]
    if fp8_cache:
        words += ["--use_fp8_context_fmha", "enable"]  # what a paged context reads out of an fp8 cache
    return words


def require_compiler(command: list[str]) -> tuple[str, str]:
    """The version of the package and the path of its compiler; raises TargetError, with what to run, without them.

    Raises EngineError for another line of the package.
    """
    if installed(PACKAGE) is None:
        raise TargetError(
            f"prepared, but {PACKAGE} is not installed: install {NEEDED} (docs/llm.md) and build again, or run"
            f" `{shlex.join(command)}`."
        )
    version = require_package()
    beside = Path(sys.executable).parent / PROGRAM
    program = str(beside) if beside.is_file() else shutil.which(PROGRAM)
    if program is None:
        raise TargetError(
            f"prepared, but {PROGRAM} is not on the path: activate {PACKAGE}'s environment and build again, or run"
            f" `{shlex.join(command)}`."
        )
    return version, program


def compile_checkpoint(command: list[str], output: Path, log: Path, progress: Callable[[str], None]) -> None:
    """Run `build_command`'s words, which write to `output`; every line goes to `log`, its steps to `progress`.

    Raises as `require_compiler`, and BuildError with the reason where it fails; `output` is gone then.
    """
    _, program = require_compiler(command)
    log.parent.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    # It leaves its timing cache where it runs.
    with log.open("w", encoding="utf-8") as file, tempfile.TemporaryDirectory() as here:
        file.write(shlex.join(command) + "\n")
        with subprocess.Popen(
            [sys.executable, "-c", _ENDING, program, *command[1:]],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=here,
            start_new_session=True,
        ) as child:
            assert child.stdout is not None
            try:
                for line in child.stdout:
                    file.write(line)
                    file.flush()
                    lines.append(line.rstrip())
                    if step := _step(line):
                        progress(step)
            except BaseException:
                os.killpg(child.pid, signal.SIGKILL)  # with the workers that it started
                raise
    if child.returncode == 0 and (output / "config.json").is_file():
        return
    shutil.rmtree(output, ignore_errors=True)
    raise BuildError(f"{PROGRAM} failed: {_reason(lines, child.returncode)} (all it said is in {log}).")


def _step(line: str) -> str | None:
    """What a line of the log says for people: the message after [TRT-LLM] [I] or [TRT] [I]."""
    match = re.search(r"\[(?:TRT-LLM|TRT|TensorRT-LLM)\] ?\[[IW]\] ?(.+)", line)
    return match[1].strip()[:100] if match else None


def _reason(lines: list[str], code: int) -> str:
    text = "\n".join(lines)
    for pattern, meaning in _REASONS:
        if re.search(pattern, text):
            return meaning
    if code < 0:
        return f"it was ended by signal {-code}, which the system does where memory runs out"
    errors = [line for line in lines if re.search(r"\[E\]|Error", line)] or lines
    return " ".join(errors[-1].split()) if errors else f"exit status {code}"

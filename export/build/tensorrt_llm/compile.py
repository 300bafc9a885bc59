"""Compiling a checkpoint with trtllm-build where the GPU is: its command, its progress, its log, its failures."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.errors import BuildError, EngineError, TargetError
from storm_edge.runtime.llm.tensorrt_llm_package import require_package

PROGRAM = "trtllm-build"
_BATCH = 4  # requests at once: a question, and workers beside it
_TEXT = 1024  # tokens of template and question, and again of the answer
_CHUNK = 8192  # tokens that are computed at once; a longer prompt is cut
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
    """trtllm-build's words for a checkpoint; every limit of the runtime is set here."""
    words = [PROGRAM, "--checkpoint_dir", str(checkpoint), "--output_dir", str(output), "--workers", str(tp)]
    for name, number in (
        ("max_batch_size", _BATCH),
        ("max_beam_width", 1),
        ("max_input_len", wanted.input),
        ("max_seq_len", wanted.sequence),
        ("max_num_tokens", min(_CHUNK, wanted.input)),
        ("max_multimodal_len", _BATCH * wanted.visual),  # the table of all requests together
    ):
        words += [f"--{name}", str(number)]
    words += ["--gemm_plugin", "auto", "--gpt_attention_plugin", "auto"]
    words += ["--remove_input_padding", "enable", "--kv_cache_type", "paged", "--use_paged_context_fmha", "enable"]
    if fp8_cache:
        words += ["--use_fp8_context_fmha", "enable"]  # what a paged context reads out of an fp8 cache
    return words


def compile_checkpoint(command: list[str], output: Path, log: Path, progress: Callable[[str], None]) -> None:
    """Run `build_command`'s words, which write to `output`; every line goes to `log`, its steps to `progress`.

    Raises TargetError with the command where this machine cannot run it, BuildError with the reason where it fails;
    `output` is gone then.
    """
    program = _program()
    try:
        require_package()
    except EngineError as e:
        raise TargetError(f"prepared, but not compiled: {e} Then run `{shlex.join(command)}`.") from e
    if program is None:
        raise TargetError(
            f"prepared, but {PROGRAM} is not on the path: activate the environment of tensorrt_llm and run"
            f" `{shlex.join(command)}`."
        )
    lines: list[str] = []
    with log.open("w", encoding="utf-8") as file:
        file.write(shlex.join(command) + "\n")
        with subprocess.Popen(
            [program, *command[1:]], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as child:
            assert child.stdout is not None
            for line in child.stdout:
                file.write(line)
                file.flush()
                lines.append(line.rstrip())
                if step := _step(line):
                    progress(step)
    if child.returncode == 0 and (output / "config.json").is_file():
        return
    shutil.rmtree(output, ignore_errors=True)
    raise BuildError(f"{PROGRAM} failed: {_reason(lines, child.returncode)} (all it said is in {log}).")


def _program() -> str | None:
    beside = Path(sys.executable).parent / PROGRAM
    return str(beside) if beside.is_file() else shutil.which(PROGRAM)


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

"""Judging what a build says of the language model: its runner and precision, for goal.py."""

from __future__ import annotations

from storm_edge.export.build.options import BuildOptions
from storm_edge.export.build.tensorrt.versions import FIRST_DECODER, parse_version
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.config.sizes import ATTENDED_HEADS, TURNED_HEADS
from storm_edge.runtime.errors import TargetError, UsageError
from storm_edge.runtime.machine.hardware import Release
from storm_edge.runtime.machine.packages import import_onnxruntime_cuda
from storm_edge.runtime.machine.precisions import (
    check_chosen_llm,
    check_llm_precision,
    require_bf16_units,
    require_choice,
)
from storm_edge.runtime.machine.probe import Machine
from storm_edge.runtime.machine.targets import FIRST_BF16_SM, Target
from storm_edge.runtime.runners import RUNNERS, function


def judge_language(
    bundle: Bundle, where: Target, options: BuildOptions, version: str, sm: int | None, here: Machine | None
) -> tuple[str, str]:
    """The runner and the precision; `version` is the encoders' TensorRT, `here` the machine where it compiles now.

    Raises TargetError and UsageError for what cannot be done, EngineError where the package that runs it is another's,
    and as the runner's own `judge`.
    """
    # A TensorRT too old for the language model leaves it to ONNX Runtime, where the target has that.
    too_old = parse_version(version) < FIRST_DECODER and "decoder" in options.stages
    release = next((r for r in where.releases if not r.llm_tensorrt), None) if too_old else None
    runner = _runner(where, options, release)
    _require_length(bundle, options)
    if language := RUNNERS[runner].language:
        precision = check_chosen_llm(where, runner, options.llm_precision)
        function(f"{language}:judge")(bundle, options, precision, here)
        return runner, precision
    if runner in where.llm_choices:
        precision = check_chosen_llm(where, runner, options.llm_precision)
    else:
        precision = check_llm_precision(where, options.llm_precision, release, sm)
    if "decoder" in options.stages:
        _require_runs(bundle, runner, version)
        if here is not None and RUNNERS[runner].device == "cuda" and not RUNNERS[runner].compiles:
            import_onnxruntime_cuda()  # before minutes of compiling the encoders
    return runner, precision


def judge_fused(bundle: Bundle, where: Target, options: BuildOptions, sm: int | None) -> str | None:
    """The precision of a language model that ONNX Runtime runs in CUDA, None for the target's default.

    `sm` is the GPU's compute capability x 10 where it is here. Raises TargetError for what cannot be done.
    """
    _require_length(bundle, options)
    _require_heads(bundle, ATTENDED_HEADS, "build for another target")
    precision = options.llm_precision
    if precision is None and sm is not None and sm < FIRST_BF16_SM:
        return "fp16"
    require_bf16_units(where, precision or "", sm, "--llm-precision")
    return precision


def _runner(where: Target, options: BuildOptions, release: Release | None) -> str:
    """What runs the language model: the one asked for, the target's usual one, or its last on a `release` without that.

    Raises UsageError for `--tp`, or a choice, that no language model is built for, TargetError for a choice that the
    target has not.
    """
    usual = where.llm_runners[-1] if release else where.llm_runners[0]
    chosen = options.llm or usual
    if chosen != usual:
        require_choice(where, chosen)
        if "decoder" not in options.stages:
            raise UsageError(f"--llm {chosen} is for the language model: add decoder to --stages, or leave it out.")
    if options.tp != 1 and not RUNNERS[chosen].language:
        can = " or ".join(f"--llm {name}" for name in where.llm_choices if RUNNERS[name].language)
        can = can or "a data-center target"
        raise UsageError(f"--tp {options.tp}: {RUNNERS[chosen].words} runs on one GPU: add {can}, or leave it out.")
    return chosen


def _require_length(bundle: Bundle, options: BuildOptions) -> None:
    """Raise TargetError for a KV cache of more tokens than the model was made for."""
    most, length = bundle.config.llm.max_position_embeddings, options.max_length
    if length is not None and not 1 <= length <= most:
        raise TargetError(f"--max-length {length} is outside what the model was made for: give 1 to {most}.")


def _require_runs(bundle: Bundle, llm_runner: str, version: str) -> None:
    """Raise TargetError where a runner beside a TensorRT of `version` cannot run this language model."""
    instead = "build the rest alone with --stages vision,temporal"
    if RUNNERS[llm_runner].compiles:
        if parse_version(version) < FIRST_DECODER:
            raise TargetError(
                f"TensorRT {'.'.join(map(str, parse_version(version)))} cannot run the language model (its operators"
                " start at 10.15): take TensorRT 10.15 or newer (--tensorrt 10.16 prepares for it elsewhere), or"
                f" {instead}."
            )
    else:
        _require_heads(bundle, TURNED_HEADS, instead)


def _require_heads(bundle: Bundle, multiple: int, instead: str) -> None:
    """Raise TargetError for heads that ONNX Runtime's fused attention does not take."""
    head = bundle.config.llm.head_dim
    if head % multiple:
        raise TargetError(
            f"the language model's heads have {head} channels, and ONNX Runtime's fused attention, which runs it here,"
            f" takes multiples of {multiple}: {instead}."
        )

"""Which precisions a target takes, and what to say of the others: the reason, and what comes nearest."""

from __future__ import annotations

from storm_edge.runtime.errors import StormError, TargetError, UsageError
from storm_edge.runtime.machine.hardware import Release
from storm_edge.runtime.machine.targets import FIRST_BF16_SM, FIRST_FP8_SM, PRECISIONS, TARGETS, Target
from storm_edge.runtime.runners import RUNNERS


def check_precision(where: Target, precision: str | None, sm: int | None = None) -> str:
    """The vision tower's and temporal encoder's precision to build with; None takes the default.

    `sm` narrows a target of several compute capabilities. Raises TargetError: what the hardware cannot do, with the
    reason and the nearest thing it can; or what this version does not build yet. Raises UsageError for no precision.
    """
    if precision is not None:
        require_capable(where, precision, sm)
    return _built(where, precision, where.status, "--precision")


def check_llm_precision(
    where: Target, precision: str | None, release: Release | None = None, sm: int | None = None
) -> str:
    """The language model's precision to build with; None takes the default. `release` is the device's software.

    Raises TargetError as `check_precision` does.
    """
    if precision is not None:
        require_llm_capable(where, precision, release, sm)
    elif release and not release.llm_tensorrt:
        precision = "int4"
    return _built(where, precision, where.llm_status, "--llm-precision")


def require_choice(where: Target, runner: str) -> None:
    """Raise TargetError for a runner of the language model that a target has not, UsageError for what is no runner."""
    if runner not in where.llm_choices:
        can = " or ".join((where.llm_runners[0], *where.llm_choices))
        known = runner in RUNNERS
        raise (TargetError if known else UsageError)(f"{where.name} has no --llm {runner}: choose {can}.")


def check_chosen_llm(where: Target, runner: str, precision: str | None) -> str:
    """The language model's precision on a runner of `where.llm_choices`; None takes the runner's default.

    Raises TargetError or UsageError as `check_precision` does, and as `require_choice`.
    """
    require_choice(where, runner)
    status = where.chosen_status(runner)
    if precision is None or precision in status:
        return precision or next(iter(status))
    reason = f"{RUNNERS[runner].words} runs no language model in {precision}"
    if precision not in PRECISIONS or _lacks_fp8(precision, where.sm):
        reason = _reason(where, precision, where.sm, llm=True)
    raise _kind(precision)(f"{reason}: {_use(list(status), status, precision, '--llm-precision')}.")


def check_sms(where: Target, sms: tuple[int, ...]) -> None:
    """Raise TargetError where `where` is not compiled for other GPUs than the one present, or not for these."""
    if sms and not RUNNERS[where.runner].for_absent_gpus:
        raise TargetError(
            f"only TensorRT for RTX (target rtx) compiles for a GPU that is not there: leave --sm out, {where.name} is"
            f" {f'always SM {where.sm}' if where.sm else 'none of its targets'}."
        )
    unknown = [sm for sm in sms if sm not in where.sms]
    if unknown:
        raise TargetError(
            f"TensorRT for RTX does not compile for SM {unknown[0]}: choose among {', '.join(map(str, where.sms))}."
        )


def require_bf16_units(where: Target, precision: str, sm: int | None, option: str) -> None:
    """Raise TargetError for bf16 on a GPU, of compute capability `sm` x 10, that does not multiply it."""
    if precision == "bf16" and sm is not None and sm < FIRST_BF16_SM:
        raise TargetError(
            f"this GPU (SM {sm}) has no bf16 units, they start at SM {FIRST_BF16_SM}: use {option} fp16 for"
            f" {where.name}."
        )


def require_capable(where: Target, precision: str, sm: int | None = None) -> None:
    """Raise TargetError where the hardware cannot run vision and temporal in `precision`, built here or not."""
    sm = sm or where.sm
    if precision in where.precisions and not _lacks_fp8(precision, sm):
        return
    can = [p for p in where.precisions if p != precision]
    raise _kind(precision)(f"{_reason(where, precision, sm)}: {_use(can, where.status, precision, '--precision')}.")


def require_llm_capable(where: Target, precision: str, release: Release | None = None, sm: int | None = None) -> None:
    """Raise TargetError where the language model cannot run in `precision` on this hardware and software."""
    sm = sm or where.sm
    if precision not in where.llm_precisions or _lacks_fp8(precision, sm):
        use = _use([p for p in where.llm_precisions if p != precision], where.llm_status, precision, "--llm-precision")
        raise _kind(precision)(f"{_reason(where, precision, sm, llm=True)}: {use}.")
    if release and not release.llm_tensorrt and precision != "int4":
        raise TargetError(
            f"TensorRT {release.tensorrt} of {release.name} cannot run the language model (the KV cache operators start"
            " at 10.15): use --llm-precision int4, which ONNX Runtime CUDA runs there."
        )


_NEAREST = {  # what comes closest to a precision, best first
    "fp32": ("fp16", "bf16"),
    "fp16": ("bf16", "fp32", "int8"),
    "bf16": ("fp16", "fp32", "int8"),
    "int8": ("fp16", "bf16", "fp32", "int4"),
    "fp8": ("int8", "fp16", "bf16", "fp32", "int4"),
    "int4": ("int8", "fp16", "bf16", "fp32"),
}


def _lacks_fp8(precision: str, sm: int | None) -> bool:
    return precision == "fp8" and sm is not None and sm < FIRST_FP8_SM


def _kind(precision: str) -> type[StormError]:
    """What exists and is missing here is the target's fault, what does not exist the command's."""
    return TargetError if precision in PRECISIONS else UsageError


def _reason(where: Target, precision: str, sm: int | None, *, llm: bool = False) -> str:
    part = "language model" if llm else "vision tower and temporal encoder"
    chip = f"{where.hardware} (SM {sm})" if sm else where.hardware
    if precision not in PRECISIONS:
        return f"there is no precision {precision!r}"
    if _lacks_fp8(precision, sm):
        return f"{chip} has no FP8 units, they start at SM {FIRST_FP8_SM}"
    if precision == "fp8" and RUNNERS[where.runner].device == "cpu":
        return "no CPU has FP8 units"
    if precision in ("fp16", "bf16") and RUNNERS[where.runner].device == "cpu":
        return f"ONNX Runtime multiplies no {precision} matrices on a CPU"
    if precision == "fp32":
        return f"fp32 is for the CPU; {where.hardware} has no fused fp32 attention"
    if precision == "int4" and not llm:
        return "int4 is for the language model's weights (--llm-precision), not for the vision tower"
    return f"{chip} has no {precision} form of the {part}"


def _use(can: list[str], status: dict[str, str], wanted: str, option: str) -> str:
    """The advice: the nearest precisions that are built, or else the nearest that could be."""
    order = [p for p in _NEAREST.get(wanted, PRECISIONS) if p in can] or can
    built = [p for p in order if p in status][:2]
    if built:
        return f"use {option} {' or '.join(built)}"
    return f"use {option} {' or '.join(order[:2])} (which this version does not build yet)"


def _built(where: Target, precision: str | None, status: dict[str, str], option: str) -> str:
    default = next(iter(status), None)
    if default is None:
        can = ", ".join(t.name for t in TARGETS.values() if t.status)
        raise TargetError(f"target {where.name} cannot be built by this version yet: build for {can}.")
    if precision is not None and precision not in status:
        built = " or ".join(status)
        raise TargetError(f"this version does not build {precision} for {where.name} yet: use {option} {built}.")
    return precision or default

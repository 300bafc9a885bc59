"""What storm-edge can build for, and what each target can do.

Two questions are kept apart: what the hardware and its engines can do (TARGETS, a fact), and what this version builds
and has seen run (BUILDS and LLM_BUILDS, edited as builders are added).
`python -m storm_edge.runtime.machine.targets` prints the support matrix of the README.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from storm_edge.runtime.errors import StormError, TargetError, UsageError
from storm_edge.runtime.machine.hardware import DEVICES, RELEASES, Device, Release

# target -> precision -> how far it has come, for the vision tower and temporal encoder; the first is the default.
# The words: "run on MACHINE, MONTH", "compiled" (an engine builder accepted it, nothing ran it), "written".
_RTX = "compiled for SM 86, 89, 120"
_RTX_FP8 = "compiled for SM 89, 120"
_WRITTEN = dict.fromkeys(("fp16", "bf16", "int8"), "written")
BUILDS: dict[str, dict[str, str]] = {
    "cpu": dict.fromkeys(("fp32", "int8"), "run on x86-64 (AMD EPYC), 2026-11"),
    "rtx": {"fp16": _RTX, "bf16": _RTX, "int8": _RTX, "fp8": _RTX_FP8},
    "a100": _WRITTEN,
    **dict.fromkeys(("l4", "l40s", "h100", "h200", "b200"), _WRITTEN | {"fp8": "written"}),
    "orin": {"fp16": "written", "int8": "written"},
    "thor": {"fp16": "written", "int8": "written", "fp8": "written"},
}
# The same for the language model.
_LLM_WRITTEN = dict.fromkeys(("bf16", "fp16", "int4"), "written")
LLM_BUILDS: dict[str, dict[str, str]] = {
    "cpu": dict.fromkeys(("fp32", "int8", "int4"), "run on x86-64 (AMD EPYC), 2026-11"),
    "rtx": {**dict.fromkeys(("bf16", "fp16", "int4"), _RTX), "fp8": _RTX_FP8},
    "a100": _LLM_WRITTEN,
    **dict.fromkeys(("l4", "l40s", "h100", "h200", "b200"), _LLM_WRITTEN | {"fp8": "written"}),
    "orin": {"bf16": "written", "int4": "written"},
    "thor": {"bf16": "written", "int4": "written", "fp8": "written"},
}

EngineKind = Literal["onnxruntime-cpu", "onnxruntime-cuda", "tensorrt-rtx", "tensorrt"]
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8", "int4")
FIRST_FP8_SM = 89
_ENGINE_WORDS: dict[EngineKind, str] = {
    "onnxruntime-cpu": "ONNX Runtime",
    "onnxruntime-cuda": "ONNX Runtime CUDA",
    "tensorrt-rtx": "TensorRT for RTX",
    "tensorrt": "TensorRT",
}


@dataclass(frozen=True)
class Target:
    """One kind of machine, and what its hardware and engines can do.

    `sms` are the compute capabilities x 10 that an engine can be built for (none: any, or no GPU). `precisions` are the
    vision tower's and temporal encoder's, `llm_precisions` the language model's. `devices` go from small to large,
    `releases` from old to new. `integrated`: processor and GPU share one memory.
    """

    name: str
    hardware: str
    engine: EngineKind
    llm_engines: tuple[EngineKind, ...]
    precisions: tuple[str, ...]
    llm_precisions: tuple[str, ...]
    sms: tuple[int, ...] = ()
    integrated: bool = False

    @property
    def sm(self) -> int | None:
        """The compute capability x 10, where the target has exactly one."""
        return self.sms[0] if len(self.sms) == 1 else None

    @property
    def devices(self) -> tuple[Device, ...]:
        """The products of this target whose published figures are known."""
        return DEVICES.get(self.name, ())

    @property
    def releases(self) -> tuple[Release, ...]:
        """The platform software this target comes with; none where it is installed from PyPI."""
        return RELEASES.get(self.name, ())

    @property
    def engines(self) -> tuple[EngineKind, ...]:
        """Every engine kind that a build for this target may need."""
        return tuple(dict.fromkeys((self.engine, *self.llm_engines)))

    @property
    def status(self) -> dict[str, str]:
        """Precision -> how far this version has come with it, for vision tower and temporal encoder."""
        return BUILDS.get(self.name, {})

    @property
    def llm_status(self) -> dict[str, str]:
        """Precision -> how far this version has come with it, for the language model."""
        return LLM_BUILDS.get(self.name, {})

    @property
    def default_precision(self) -> str | None:
        """The precision built when none is asked for; None where this version builds nothing."""
        return next(iter(self.status), None)

    @property
    def default_llm_precision(self) -> str | None:
        """The language model's precision when none is asked for; None where this version builds none."""
        return next(iter(self.llm_status), None)


def _data_center(name: str, hardware: str, sm: int) -> Target:
    fp8 = ("fp8",) if sm >= FIRST_FP8_SM else ()
    half = ("fp16", "bf16", "int8", *fp8)
    return Target(name, hardware, "tensorrt", ("tensorrt",), half, ("bf16", "fp16", "int4", *fp8), (sm,))


TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        Target(
            "cpu", "x86-64, arm64", "onnxruntime-cpu", ("onnxruntime-cpu",), ("fp32", "int8"), ("fp32", "int8", "int4")
        ),
        Target("cuda", "any CUDA GPU", "onnxruntime-cuda", ("onnxruntime-cuda",), ("fp16",), ("fp16", "int4")),
        Target(
            "rtx",
            "GeForce and RTX PCs",
            "tensorrt-rtx",
            ("tensorrt-rtx",),
            ("fp16", "bf16", "int8", "fp8"),
            ("bf16", "fp16", "int4", "fp8"),
            (75, 80, 86, 89, 120, 121),
        ),
        _data_center("a100", "A100", 80),
        _data_center("l4", "L4", 89),
        _data_center("l40s", "L40S", 89),
        _data_center("h100", "H100", 90),
        _data_center("h200", "H200", 90),
        _data_center("b200", "B200", 100),
        # JetPack 6.2's TensorRT 10.3 cannot run the decoder; ONNX Runtime CUDA with int4 weights does.
        Target(
            "orin",
            "Jetson Orin",
            "tensorrt",
            ("tensorrt", "onnxruntime-cuda"),
            ("fp16", "int8"),
            ("bf16", "int4"),
            (87,),
            integrated=True,
        ),
        Target(
            "thor",
            "Jetson Thor",
            "tensorrt",
            ("tensorrt",),
            ("fp16", "int8", "fp8"),
            ("bf16", "int4", "fp8"),
            (110,),
            integrated=True,
        ),
    )
}


def target(name: str) -> Target:
    """The target called `name`; raises UsageError naming those that exist."""
    if name not in TARGETS:
        raise UsageError(f"there is no target {name!r}: choose one of {', '.join(TARGETS)}.")
    return TARGETS[name]


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


def check_sms(where: Target, sms: tuple[int, ...]) -> None:
    """Raise TargetError where `where` is not compiled for other GPUs than the one present, or not for these."""
    if sms and where.engine != "tensorrt-rtx":
        raise TargetError(
            f"only TensorRT for RTX (target rtx) compiles for a GPU that is not there: leave --sm out, {where.name} is"
            f" {f'always SM {where.sm}' if where.sm else 'none of its targets'}."
        )
    unknown = [sm for sm in sms if sm not in where.sms]
    if unknown:
        raise TargetError(
            f"TensorRT for RTX does not compile for SM {unknown[0]}: choose among {', '.join(map(str, where.sms))}."
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
    if precision == "fp8" and where.engine == "onnxruntime-cpu":
        return "no CPU has FP8 units"
    if precision in ("fp16", "bf16") and where.engine == "onnxruntime-cpu":
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


def support_matrix() -> str:
    """The README's table of targets, in Markdown: two rows a target, `-` what it cannot do, `not yet` what it could."""
    lines = ["| target | hardware | part | engine | " + " | ".join(PRECISIONS) + " |"]
    lines.append("|---" * (4 + len(PRECISIONS)) + "|")
    for t in TARGETS.values():
        rows = (
            ("vision, temporal", (t.engine,), t.precisions, t.status),
            ("language model", t.llm_engines, t.llm_precisions, t.llm_status),
        )
        for part, engines, can, status in rows:
            words = ", ".join(_ENGINE_WORDS[e] for e in engines)
            cells = " | ".join(status.get(p, "not yet") if p in can else "-" for p in PRECISIONS)
            lines.append(f"| {t.name} | {t.hardware} | {part} | {words} | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(support_matrix())

"""What storm-edge can build for, and what each target can do.

Two questions are kept apart: what the hardware and its engines can do (TARGETS, a fact), and what this version builds
and has seen run (BUILDS and LLM_BUILDS, edited as builders are added). precisions.py judges by both, matrix.py shows
them.
"""

from __future__ import annotations

from dataclasses import dataclass

from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.machine.hardware import DEVICES, RELEASES, Device, Release

# target -> precision -> how far it has come, for the vision tower and temporal encoder; the first is the default.
# The words: "run on MACHINE, MONTH", "compiled" (an engine builder accepted it, nothing ran it), "written".
_RTX = "compiled for SM 86, 89, 120"
_RTX_FP8 = "compiled for SM 89, 120"
_WRITTEN = dict.fromkeys(("fp16", "bf16", "int8"), "written")
BUILDS: dict[str, dict[str, str]] = {
    "cpu": dict.fromkeys(("fp32", "int8"), "run on x86-64 (AMD EPYC), 2026-11"),
    "cuda": dict.fromkeys(("fp16", "bf16"), "written"),
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
    "cuda": _LLM_WRITTEN,
    "rtx": {**dict.fromkeys(("bf16", "fp16", "int4"), _RTX), "fp8": _RTX_FP8},
    "a100": _LLM_WRITTEN,
    **dict.fromkeys(("l4", "l40s", "h100", "h200", "b200"), _LLM_WRITTEN | {"fp8": "written"}),
    "orin": {"bf16": "written", "int4": "written"},
    "thor": {"bf16": "written", "int4": "written", "fp8": "written"},
}

# The same for runners of the language model that `--llm` names, on every target that lists them.
CHOSEN_BUILDS: dict[str, dict[str, str]] = {
    "tensorrt-llm": dict.fromkeys(("bf16", "fp16", "fp8", "int8", "int4"), "written"),
    "vllm": dict.fromkeys(("bf16", "fp16", "fp8", "int4"), "written"),
    "onnxruntime-cpu": {"int4": "written"},
}

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8", "int4")
FIRST_BF16_SM, FIRST_FP8_SM = 80, 89


@dataclass(frozen=True)
class Target:
    """One kind of machine, and what its hardware and engines can do.

    `sms` are the compute capabilities x 10 that an engine can be built for (none: any, or no GPU). `precisions` are the
    vision tower's and temporal encoder's, `llm_precisions` the language model's; `runner` runs the former, one of
    `llm_runners` the latter, or one of `llm_choices` where it is asked for. `devices` go from small to large,
    `releases` from old to new. `integrated`: processor and GPU share one memory.
    """

    name: str
    hardware: str
    runner: str
    llm_runners: tuple[str, ...]
    precisions: tuple[str, ...]
    llm_precisions: tuple[str, ...]
    sms: tuple[int, ...] = ()
    integrated: bool = False
    llm_choices: tuple[str, ...] = ()

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
    def runners(self) -> tuple[str, ...]:
        """Every runner that an engine for this target may need."""
        return tuple(dict.fromkeys((self.runner, *self.llm_runners, *self.llm_choices)))

    @property
    def status(self) -> dict[str, str]:
        """Precision -> how far this version has come with it, for vision tower and temporal encoder."""
        return BUILDS.get(self.name, {})

    @property
    def llm_status(self) -> dict[str, str]:
        """Precision -> how far this version has come with it, for the language model."""
        return LLM_BUILDS.get(self.name, {})

    def chosen_status(self, runner: str) -> dict[str, str]:
        """Precision -> how far this version has come with it, for the language model on one of `llm_choices`."""
        fp8 = all(sm >= FIRST_FP8_SM for sm in self.sms)
        return {p: words for p, words in CHOSEN_BUILDS[runner].items() if fp8 or p != "fp8"}

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
    llm = ("bf16", "fp16", "int4", *fp8)
    return Target(name, hardware, "tensorrt", ("tensorrt",), half, llm, (sm,), llm_choices=("tensorrt-llm", "vllm"))


TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        Target(
            "cpu", "x86-64, arm64", "onnxruntime-cpu", ("onnxruntime-cpu",), ("fp32", "int8"), ("fp32", "int8", "int4")
        ),
        Target(
            "cuda",
            "any CUDA GPU",
            "onnxruntime-cuda",
            ("onnxruntime-cuda",),
            ("fp16", "bf16"),
            ("bf16", "fp16", "int4"),
        ),
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
        # JetPack 6.2's TensorRT 10.3 cannot run the decoder; ONNX Runtime CUDA with int4 weights does, or the processor
        # where that is not to be had.
        Target(
            "orin",
            "Jetson Orin",
            "tensorrt",
            ("tensorrt", "onnxruntime-cuda"),
            ("fp16", "int8"),
            ("bf16", "int4"),
            (87,),
            integrated=True,
            llm_choices=("onnxruntime-cpu",),
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

"""What storm-edge can build for, and what each target can do.

`python -m storm_edge.runtime.targets` prints the support matrix of the README. A cell says "run" with where it was run,
or nothing: what was never run is not called supported.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from storm_edge.runtime.errors import TargetError


@dataclass(frozen=True)
class Target:
    """One kind of machine. `run` maps a precision that can be built to the words of the support matrix."""

    name: str
    hardware: str
    engine: str
    run: dict[str, str] = field(default_factory=dict)
    sm: int | None = None

    @property
    def default_precision(self) -> str | None:
        """The precision built when none is asked for; None where nothing can be built yet."""
        return next(iter(self.run), None)


_LATER = "TensorRT"
TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        Target("cpu", "x86-64, arm64", "ONNX Runtime", {"fp32": "run on x86-64 (AMD EPYC), 2026-11"}),
        Target("cuda", "any CUDA GPU", "ONNX Runtime CUDA"),
        Target("rtx", "GeForce and RTX PCs", "TensorRT for RTX"),
        Target("a100", "A100", _LATER, sm=80),
        Target("l4", "L4", _LATER, sm=89),
        Target("l40s", "L40S", _LATER, sm=89),
        Target("h100", "H100", _LATER, sm=90),
        Target("h200", "H200", _LATER, sm=90),
        Target("b200", "B200", _LATER, sm=100),
        Target("orin", "Jetson Orin", _LATER, sm=87),
        Target("thor", "Jetson Thor", _LATER, sm=110),
    )
}
PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8", "int4")


def target(name: str) -> Target:
    """The target called `name`; raises TargetError naming those that exist."""
    if name not in TARGETS:
        raise TargetError(f"there is no target {name!r}: choose one of {', '.join(TARGETS)}.")
    return TARGETS[name]


def check_precision(where: Target, precision: str | None) -> str:
    """The precision to build with; raises TargetError with the nearest thing that works."""
    default = where.default_precision
    if default is None:
        can = ", ".join(t.name for t in TARGETS.values() if t.run)
        raise TargetError(f"target {where.name} cannot be built by this version: build for {can}.")
    if precision is not None and precision not in where.run:
        raise TargetError(f"target {where.name} has no {precision} build in this version: use --precision {default}.")
    return precision or default


def support_matrix() -> str:
    """The README's table of targets, in Markdown."""
    lines = ["| target | hardware | engine | " + " | ".join(PRECISIONS) + " |", "|---" * (3 + len(PRECISIONS)) + "|"]
    for t in TARGETS.values():
        cells = [t.run.get(p, "") for p in PRECISIONS]
        lines.append(f"| {t.name} | {t.hardware} | {t.engine} | " + " | ".join(c or "-" for c in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(support_matrix())

"""What a build can be told, and the forms in which a command line says it; goal.py judges what it is told."""

from __future__ import annotations

import re
from dataclasses import dataclass

from storm_edge.runtime.bundle.manifest import STAGES, Stage
from storm_edge.runtime.errors import UsageError


@dataclass(frozen=True)
class BuildOptions:
    """Options of `storm build`; None takes the target's or the bundle's default.

    `tensorrt` is the version to prepare for ("10.3"), `sms` the compute capabilities that TensorRT for RTX compiles for
    (none: this machine's), `max_frames` the most frames of a clip, `max_length` the tokens of the KV cache,
    `calibration` the ranges for int8 and fp8, `workspace_gib` the builder's scratch memory; `min_shapes`, `opt_shapes`
    and `max_shapes` replace those of the optimization profiles by input name. `simulate` makes an engine for this CPU
    that computes what the target's integers stand for. With `trust_engines` one that somebody else compiled counts.
    `without_plugin` expands the operators into single steps; `wide_softmax` computes softmax in fp32 where attention is
    written as single steps, for TensorRT before 10.14; `decoder_profiles` (1 or 2) tunes the decoder's kernels for both
    one token and a prompt, or for each.
    `llm` is the runner of the language model where it is not the target's own, `tp` how many GPUs share it.
    `given` are the flags on the command line, "--max-frames" for one: they may say what is the default anyway.
    """

    precision: str | None = None
    llm_precision: str | None = None
    llm: str | None = None
    tp: int = 1
    tensorrt: str | None = None
    sms: tuple[int, ...] = ()
    stages: tuple[Stage, ...] = STAGES
    max_frames: int = 128
    max_length: int | None = None
    int4_block: int = 128
    calibration: str | None = None
    workspace_gib: float | None = None
    min_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    opt_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    max_shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    decoder_profiles: int | None = None
    wide_softmax: bool = False
    without_plugin: bool = False
    prepare_only: bool = False
    simulate: bool = False
    allow_mismatch: bool = False
    trust_engines: bool = False
    threads: int | None = None
    given: frozenset[str] = frozenset()

    def says(self, name: str) -> bool:
        """Whether the option that is the field `name` was asked for."""
        return flag(name) in self.given or getattr(self, name) != getattr(BuildOptions, name)


def flag(name: str) -> str:
    """What the option that is a field of BuildOptions is called on the command line."""
    return "--" + {"sms": "sm", "workspace_gib": "workspace"}.get(name, name).replace("_", "-")


def parse_stages(text: str) -> tuple[Stage, ...]:
    """ "vision,temporal" -> those stages in the model's order; raises UsageError for others."""
    asked = {part.strip() for part in text.split(",")}
    unknown = sorted(asked - set(STAGES))
    if unknown:
        raise UsageError(f"--stages: {', '.join(unknown)!r} is no stage: choose among {', '.join(STAGES)}.")
    return tuple(stage for stage in STAGES if stage in asked)


def parse_sms(text: str | None) -> tuple[int, ...]:
    """ "86,8.9" -> (86, 89); raises UsageError for what is no compute capability."""
    parts = [part.strip().replace(".", "") for part in (text or "").split(",") if part.strip()]
    wrong = [part for part in parts if not re.fullmatch(r"\d{2,3}", part)]
    if wrong:
        raise UsageError(f"--sm: {wrong[0]!r} is no compute capability: give them like 86,89,120.")
    return tuple(sorted({int(part) for part in parts}))


def parse_shapes(text: str | None) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """trtexec's form "frames:1x64x64x3,tokens:1x8x16x128" -> shapes by input; raises UsageError for another form."""
    shapes: list[tuple[str, tuple[int, ...]]] = []
    for part in (text or "").split(","):
        match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", part.strip())
        if match and match[1] in dict(shapes):
            raise UsageError(f"{match[1]} has two shapes in {text}: give one.")
        if match:
            shapes.append((match[1], tuple(int(size) for size in match[2].split("x"))))
        elif part.strip():
            raise UsageError(f"{part.strip()!r} is no shape: give them like frames:1x64x64x3,tokens:1x8x16x128.")
    return tuple(shapes)

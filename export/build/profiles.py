"""The input shapes an engine is built for."""

from __future__ import annotations

from storm_edge.export.build.options import BuildOptions
from storm_edge.runtime.bundle import Bundle, Stage
from storm_edge.runtime.engine import Shapes
from storm_edge.runtime.errors import UsageError

CHUNK = 256  # tokens of one prefill step


def profiles(bundle: Bundle, options: BuildOptions) -> dict[Stage, dict[str, Shapes]]:
    """Optimization profiles by stage and input: up to 16 frames a vision batch, `max_frames` a clip, CHUNK tokens."""
    config = bundle.config
    side, k, width = config.vision.image_size, config.reduction.temporal_pool, config.llm.hidden_size
    longest = options.max_frames // k * k
    if longest < k:
        raise UsageError(f"--max-frames {options.max_frames} is less than the {k} frames that are pooled: give more.")
    chunk = min(CHUNK, options.max_length or CHUNK)
    clip = [1, min(32 // k * k or k, longest), config.tokens_per_frame, width]
    made: dict[Stage, dict[str, Shapes]] = {
        "vision": {"frames": Shapes(min=[1, side, side, 3], opt=[8, side, side, 3], max=[16, side, side, 3])},
        "temporal": {"tokens": Shapes(min=[1, k, *clip[2:]], opt=clip, max=[1, longest, *clip[2:]])},
        # Most steps decode one token; a prefill step is long enough to be efficient anyway.
        "decoder": {
            "inputs_embeds": Shapes(min=[1, 1, width], opt=[1, 1, width], max=[1, chunk, width]),
            "position_ids": Shapes(min=[1, 1], opt=[1, 1], max=[1, chunk]),
        },
    }
    asked = {"min": dict(options.min_shapes), "opt": dict(options.opt_shapes), "max": dict(options.max_shapes)}
    known = {name for inputs in made.values() for name in inputs}
    unknown = {name for shapes in asked.values() for name in shapes} - known
    if unknown:
        raise UsageError(
            f"no graph has a dynamic input {', '.join(sorted(unknown))}: choose {', '.join(sorted(known))}."
        )
    return {stage: {n: _overridden(n, x, asked) for n, x in made[stage].items()} for stage in options.stages}


def _overridden(name: str, shapes: Shapes, asked: dict[str, dict[str, tuple[int, ...]]]) -> Shapes:
    """A profile with the shapes asked for; raises UsageError where they do not grow from min over opt to max."""
    sizes = shapes.model_dump() | {kind: list(given[name]) for kind, given in asked.items() if name in given}
    columns = list(zip(*sizes.values(), strict=False))
    if len({len(shape) for shape in sizes.values()}) > 1 or any(list(c) != sorted(c) for c in columns):
        raise UsageError(
            f"the profile of {name} is min {sizes['min']}, opt {sizes['opt']}, max {sizes['max']}: let it grow."
        )
    return Shapes(**sizes)

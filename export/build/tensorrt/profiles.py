"""The input shapes an engine is built for."""

from __future__ import annotations

from storm_edge.export.build.options import BuildOptions
from storm_edge.runtime.bundle.engine import ProfileShapes
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.config.sizes import CHUNK, LARGEST_VISION_BATCH, VISION_BATCH
from storm_edge.runtime.errors import UsageError

_TOGETHER = ("inputs_embeds", "position_ids")  # as many positions as embeddings


def profiles(bundle: Bundle, options: BuildOptions) -> dict[Stage, dict[str, ProfileShapes]]:
    """Optimization profiles by stage and input: up to 16 frames a vision batch, `max_frames` a clip, CHUNK tokens.

    A clip's last pooled group is filled up, so `max_frames` is as well. Raises UsageError for shapes that no graph of
    `options.stages` takes, and for profiles that the runtime could not use.
    """
    config = bundle.config
    side, k, width = config.vision.image_size, config.reduction.temporal_pool, config.llm.hidden_size
    longest = -(-options.max_frames // k) * k
    chunk = min(CHUNK, options.max_length or CHUNK)
    clip = [1, min(32 // k * k or k, longest), config.tokens_per_frame, width]
    made: dict[Stage, dict[str, ProfileShapes]] = {
        "vision": {
            "frames": ProfileShapes(
                min=[1, side, side, 3], opt=[VISION_BATCH, side, side, 3], max=[LARGEST_VISION_BATCH, side, side, 3]
            )
        },
        "temporal": {"tokens": ProfileShapes(min=[1, k, *clip[2:]], opt=clip, max=[1, longest, *clip[2:]])},
        # Most steps decode one token; a prefill step is long enough to be efficient anyway.
        "decoder": {
            "inputs_embeds": ProfileShapes(min=[1, 1, width], opt=[1, 1, width], max=[1, chunk, width]),
            "position_ids": ProfileShapes(min=[1, 1], opt=[1, 1], max=[1, chunk]),
        },
    }
    made = {stage: made[stage] for stage in options.stages}
    asked = {"min": dict(options.min_shapes), "opt": dict(options.opt_shapes), "max": dict(options.max_shapes)}
    known = {name for inputs in made.values() for name in inputs}
    unknown = {name for shapes in asked.values() for name in shapes} - known
    if unknown:
        raise UsageError(
            f"no graph has a dynamic input {', '.join(sorted(unknown))}: choose {', '.join(sorted(known))}."
        )
    chosen = {stage: {n: _overridden(n, x, asked) for n, x in inputs.items()} for stage, inputs in made.items()}
    _require_usable(chosen, k)
    return chosen


def _overridden(name: str, shapes: ProfileShapes, asked: dict[str, dict[str, tuple[int, ...]]]) -> ProfileShapes:
    """A profile with the shapes asked for; raises UsageError for those of other sizes than the graph's.

    Only the axis of frames or tokens is free, and its sizes must grow from min over opt to max.
    """
    axis = 0 if name == "frames" else 1
    for kind, given in asked.items():
        if name in given and not _fits(given[name], shapes.max, axis):
            free = "x".join("N" if i == axis else str(size) for i, size in enumerate(shapes.max))
            raise UsageError(f"--{kind}-shapes: {name} is {free} in this bundle, with N from 1 up: give such a shape.")
    sizes = shapes.model_dump() | {kind: list(given[name]) for kind, given in asked.items() if name in given}
    if not sizes["min"][axis] <= sizes["opt"][axis] <= sizes["max"][axis]:
        raise UsageError(
            f"the profile of {name} is min {sizes['min']}, opt {sizes['opt']}, max {sizes['max']}: let it grow, with"
            f" --min-shapes, --opt-shapes and --max-shapes of {name} where the usual ones do not suit."
        )
    return ProfileShapes(**sizes)


def _fits(given: tuple[int, ...], expected: list[int], axis: int) -> bool:
    """Whether a shape is `expected` but for the free axis."""
    return len(given) == len(expected) and all(
        a > 0 if i == axis else a == b for i, (a, b) in enumerate(zip(given, expected, strict=True))
    )


def _require_usable(chosen: dict[Stage, dict[str, ProfileShapes]], k: int) -> None:
    """Raise UsageError for profiles that the runtime's batches, pooled groups and prompts would not fit into."""
    frames = chosen.get("vision", {}).get("frames")
    if frames and frames.max[0] < VISION_BATCH:
        raise UsageError(
            f"the profile of frames ends at {frames.max[0]}, the runtime gives {VISION_BATCH} at once: give"
            f" --max-shapes frames:{'x'.join(map(str, [VISION_BATCH, *frames.max[1:]]))} or more."
        )
    tokens = chosen.get("temporal", {}).get("tokens")
    for kind, size in tokens.model_dump().items() if tokens else ():
        if size[1] % k:
            up = [1, -(-size[1] // k) * k, *size[2:]]
            raise UsageError(
                f"--{kind}-shapes: {size[1]} frames of tokens are no multiple of the {k} that are pooled: give"
                f" tokens:{'x'.join(map(str, up))} for instance."
            )
    decoder = chosen.get("decoder")
    if decoder:
        embeds, positions = (decoder[name].model_dump() for name in _TOGETHER)
        apart = [kind for kind in embeds if embeds[kind][1] != positions[kind][1]]
        if apart:
            raise UsageError(
                f"--{apart[0]}-shapes: inputs_embeds has {embeds[apart[0]][1]} tokens, position_ids"
                f" {positions[apart[0]][1]}: give both the same."
            )

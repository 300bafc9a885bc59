"""The input shapes an engine is built for."""

from __future__ import annotations

from storm_edge.export.build.options import BuildOptions
from storm_edge.runtime.bundle.engine import ProfileShapes
from storm_edge.runtime.bundle.manifest import Bundle, Stage
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.config.sizes import (
    TENSORRT_CHUNK,
    TENSORRT_LARGEST_CHUNK,
    VISION_BATCH,
    chunk_frames,
    kv_length,
    whole_frames,
)
from storm_edge.runtime.errors import UsageError

Profile = dict[str, ProfileShapes]  # by input
_TOGETHER = ("inputs_embeds", "position_ids")  # as many positions as embeddings


def profiles(bundle: Bundle, options: BuildOptions, shaped_later: bool = False) -> dict[Stage, list[Profile]]:
    """Optimization profiles by stage: VISION_BATCH frames, a clip of `max_frames`, and two of the decoder.

    The decoder's first is for one token, since the kernels that are best for it are poor for a prompt; its second for
    a prompt, in pieces of any length up to TENSORRT_LARGEST_CHUNK. It has one for both where `decoder_profiles` is 1,
    or nothing was asked for and kernels are `shaped_later`, when the engine runs: as TensorRT for RTX does, whose
    engine would hold the weights twice. A clip's last pooled group is filled up, so `max_frames` is as well.

    Raises UsageError for shapes that no graph of `options.stages` takes, and for profiles that the runtime could not
    use.
    """
    config = bundle.config
    side, k, width = config.vision.image_size, config.reduction.temporal_pool, config.llm.hidden_size
    longest = -(-options.max_frames // k) * k
    clip = [1, min(32 // k * k or k, longest), config.tokens_per_frame, width]
    length = kv_length(config, options.max_frames, options.max_length)
    usual, largest = min(TENSORRT_CHUNK, length), min(TENSORRT_LARGEST_CHUNK, length)
    batch = [VISION_BATCH, side, side, 3]
    made: dict[Stage, list[Profile]] = {
        "vision": [{"frames": ProfileShapes(min=[1, *batch[1:]], opt=batch, max=batch)}],
        "temporal": [{"tokens": ProfileShapes(min=[1, k, *clip[2:]], opt=clip, max=[1, longest, *clip[2:]])}],
        "decoder": [_tokens(1, 1, largest, width)],
    }
    if (options.decoder_profiles or (1 if shaped_later else 2)) == 2:
        made["decoder"] = [_tokens(1, 1, 1, width), _tokens(1, usual, largest, width)]
    made = {stage: made[stage] for stage in options.stages}
    asked = {"min": dict(options.min_shapes), "opt": dict(options.opt_shapes), "max": dict(options.max_shapes)}
    known = {name for found in made.values() for name in found[-1]}
    unknown = {name for shapes in asked.values() for name in shapes} - known
    if unknown:
        raise UsageError(
            f"no graph has a dynamic input {', '.join(sorted(unknown))}: choose {', '.join(sorted(known))}."
        )
    # Shapes that are asked for are those of a prompt: one token is one token.
    chosen = {
        stage: [*found[:-1], {n: _overridden(n, x, asked) for n, x in found[-1].items()}]
        for stage, found in made.items()
    }
    _require_usable({stage: found[-1] for stage, found in chosen.items()}, k)
    return chosen


def of_short_clips(found: list[Profile], config: StormConfig) -> list[Profile]:
    """The temporal encoder's profiles without the clips that go through its pieces."""
    most = max(whole_frames(config), config.reduction.temporal_pool)

    def clamped(shapes: ProfileShapes) -> ProfileShapes:
        return ProfileShapes(**{k: [s[0], min(s[1], most), *s[2:]] for k, s in shapes.model_dump().items()})

    return [{name: clamped(shapes) for name, shapes in profile.items()} for profile in found]


def piece_profile(config: StormConfig, name: str) -> Profile:
    """The profile of a piece of the temporal encoder: chunks of one size, and whatever is left of a clip at its end.

    A clip that grows frame by frame, and is pooled when a group is full, fits too.
    """
    n, longest = config.tokens_per_frame, chunk_frames(config)
    least = config.reduction.temporal_pool if name == "pool" else 1

    def tokens(width: int) -> ProfileShapes:
        return ProfileShapes(min=[1, least * n, width], opt=[1, longest * n, width], max=[1, longest * n, width])

    return {"tokens": tokens(config.llm.hidden_size), "x": tokens(config.d_inner)}


def _tokens(least: int, usual: int, most: int, width: int) -> Profile:
    """A decoder's profile from `least` to `most` tokens of `width` channels."""
    return {
        "inputs_embeds": ProfileShapes(min=[1, least, width], opt=[1, usual, width], max=[1, most, width]),
        "position_ids": ProfileShapes(min=[1, least], opt=[1, usual], max=[1, most]),
    }


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


def _require_usable(chosen: dict[Stage, Profile], k: int) -> None:
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

"""A plan: memory and time of each stage of one model on one device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.config.sizes import (
    CHUNK,
    CUDA_CHUNK,
    PAGED_CHUNK,
    TENSORRT_LARGEST_CHUNK,
    TEXT_TOKENS,
    kv_length,
    vision_batch,
)
from storm_edge.runtime.errors import TargetError, UsageError
from storm_edge.runtime.machine.hardware import Device
from storm_edge.runtime.machine.precisions import check_chosen_llm, require_capable, require_llm_capable
from storm_edge.runtime.machine.targets import Target
from storm_edge.runtime.plan import memory
from storm_edge.runtime.plan.times import efficiencies, floor_seconds
from storm_edge.runtime.plan.work import Work, decode_work, kv_bytes, prefill_work, temporal_work, vision_work
from storm_edge.runtime.runners import RUNNERS

GIB = 2**30
LONGER = 1024  # positions of the KV cache whose price a plan names
# Of the memory a product is named after, a Jetson's kernel shows 95% (7.6 of 8 GiB) and an L4's driver 94%. A Jetson's
# system without a desktop and the CUDA context take 1.5 GiB, a CUDA context alone 0.5.
SHOWN = 0.94
SYSTEM = {True: 1.5, False: 0.5}  # GiB, by Target.integrated


@dataclass(frozen=True)
class PlanOptions:
    """What can be chosen. Pools and `sample` are None where the model's own stand; `llm` is the language model's runner
    where it is not the target's own, and `tp` how many GPUs share it.
    """

    frames: int
    precision: str
    llm_precision: str
    sample: int | None = None
    temporal_pool: int | None = None
    spatial_pool: int | None = None
    llm: str = ""
    tp: int = 1


@dataclass(frozen=True)
class StagePlan:
    """One stage, in bytes, FLOPs and seconds; for decode, of one token. Times are None where no rate is published.

    `activations` and `workspace` are wanted while it runs, `outputs` until what follows has read them; prefill's are
    the prompt's embeddings.
    """

    weights: float
    activations: float
    outputs: float
    kv_cache: float
    workspace: float
    flops: float
    bytes: float
    floor: float | None
    expected: float | None


@dataclass(frozen=True)
class Plan:
    """Stages by name, and what they add up to. Memory in bytes; `usable` is None where no device was given.

    `longer` is what LONGER more positions of the KV cache take: bytes, and seconds of every token, None where no rate
    is published or positions that hold nothing are not read. `sharing` are the stages that run in turn in one block of
    memory: TensorRT's engines, while each session of ONNX Runtime keeps what it once took.
    """

    target: str
    device: Device | None
    options: PlanOptions
    scan_tokens: int
    visual_tokens: int
    cache_length: int
    context: int
    stages: dict[str, StagePlan]
    usable: float | None
    longer: tuple[float, float | None]
    sharing: tuple[str, ...]

    @property
    def peak(self) -> float:
        """All weights and outputs, the KV cache, and activations with workspace: once for the stages that share it."""
        kept = sum(s.weights + s.kv_cache + s.outputs for s in self.stages.values())
        scratch = {name: s.activations + s.workspace for name, s in self.stages.items()}
        shared = max((scratch.pop(name) for name in self.sharing), default=0.0)
        return kept + shared + sum(scratch.values())

    @property
    def fits_memory(self) -> bool:
        """Whether the peak is below what the device leaves to a program."""
        return self.usable is None or self.peak <= self.usable

    @property
    def fits_context(self) -> bool:
        """Whether the prompt fits into the positions the language model was made for."""
        return self.visual_tokens + TEXT_TOKENS <= self.context

    @property
    def fits(self) -> bool:
        """Memory and context both."""
        return self.fits_memory and self.fits_context

    @property
    def first_token(self) -> float | None:
        """Expected seconds from frames in memory to the first word."""
        before = [self.stages[s].expected for s in ("vision", "temporal", "prefill")]
        return None if None in before else sum(x for x in before if x is not None)


def default_options(where: Target, frames: int) -> PlanOptions:
    """The target's default precisions, or the first it can have where this version builds none yet."""
    return PlanOptions(
        frames, where.default_precision or where.precisions[0], where.default_llm_precision or where.llm_precisions[0]
    )


def device_of(where: Target, gib: int | None) -> Device | None:
    """The product of a target with so much memory, the largest without `gib`; raises TargetError.

    A target whose products are not listed gets one of that memory without rates, or None.
    """
    if not where.devices:
        return None if gib is None else Device(f"{where.hardware}, {gib} GB", gib, 0)
    if gib is None:
        return where.devices[-1]
    found = next((d for d in where.devices if d.memory == gib), None)
    if found is None:
        sizes = ", ".join(str(d.memory) for d in where.devices)
        raise TargetError(
            f"target {where.name} has no device of {gib} GB: give --memory {sizes.replace(', ', ' or ')}."
        )
    return found


def make_plan(config: StormConfig, where: Target, device: Device | None, options: PlanOptions) -> Plan:
    """Plan `config` on a device; raises TargetError for a precision the target cannot have, UsageError for sizes.

    Where several GPUs share the language model, the plan is that of the first, which runs the encoders too.
    """
    require_capable(where, options.precision)
    if options.llm:
        check_chosen_llm(where, options.llm, options.llm_precision)
    else:
        require_llm_capable(where, options.llm_precision)
    config = reduced(config, options)
    if options.frames < 1:
        raise UsageError(f"{options.frames} frames: give at least 1.")
    k = config.reduction.temporal_pool
    frames = -(-options.frames // k) * k  # the last frame is repeated to fill up a group
    visual = config.visual_tokens(frames)
    tokens = visual + TEXT_TOKENS
    # On a GPU the buffer has its length from the start, and an engine of TensorRT reads all of it for every token; ONNX
    # Runtime's grows on a CPU with the conversation.
    runner = RUNNERS[where.llm_runners[0]]
    pinned, fixed = (x and not options.llm for x in (runner.compiles, runner.device == "cuda"))
    encoders = RUNNERS[where.runner]
    pieces = bool(encoders.piece) and not config.temporal.queries  # which are made of the whole clip
    sharing = ("vision", "temporal", *(["prefill"] if pinned else [])) if encoders.compiles else ()
    context = config.llm.max_position_embeddings
    length = kv_length(config, frames) if fixed else memory.grown_length(tokens, context)
    chunk = PAGED_CHUNK if options.llm else TENSORRT_LARGEST_CHUNK if pinned else CUDA_CHUNK if fixed else CHUNK
    batch = vision_batch(config, encoders.device)
    p, q = options.precision, options.llm_precision

    def shared(work: list[Work]) -> list[Work]:
        """A GPU's share. Runners with a loop of their own round weights alone to int8, and multiply in 16 bits."""
        n = options.tp
        parts = [replace(w, flops=w.flops / n, bytes=w.bytes / n) for w in work]
        return [replace(w, precision="bf16") if options.llm and w.precision == "int8" else w for w in parts]

    def stage(name: str, work: list[Work], **held: float) -> StagePlan:
        floor = floor_seconds(work, device) if device and device.rates else None
        return StagePlan(
            **{"weights": 0.0, "activations": 0.0, "outputs": 0.0, "kv_cache": 0.0, "workspace": 0.0} | held,
            flops=sum(w.flops for w in work),
            bytes=sum(w.bytes for w in work),
            floor=floor,
            expected=None if floor is None else floor / efficiencies()[name],
        )

    stages = {
        "vision": stage(
            "vision",
            vision_work(config, frames, p, batch),
            weights=memory.vision_weights(config, p),
            activations=memory.vision_activations(config, frames, p, batch),
            outputs=memory.clip_bytes(config, frames, p, pieces=pieces),
            workspace=memory.TACTICS,
        ),
        "temporal": stage(
            "temporal",
            temporal_work(config, frames, p, pieces=pieces),
            weights=memory.temporal_weights(config, p),
            activations=memory.temporal_activations(config, frames, p, pieces=pieces),
            outputs=memory.visual_bytes(config, frames, p),
            workspace=memory.TACTICS + memory.scan_workspace(config),
        ),
        "prefill": stage(
            "prefill",
            shared(prefill_work(config, tokens, q, chunk)),
            weights=memory.llm_weights(config, q) / options.tp + (memory.embedding(config) if options.llm else 0),
            activations=memory.prefill_activations(config, tokens, length, q, chunk),
            outputs=memory.prompt_bytes(config, tokens, q),
            kv_cache=kv_bytes(config, length, q) / options.tp,
            workspace=memory.llm_workspace(config, q),
        ),
        # The same engine and cache as prefill.
        "decode": stage("decode", shared(decode_work(config, length if pinned else tokens, q))),
    }
    usable = None if device is None else max(0.0, (device.memory * SHOWN - SYSTEM[where.integrated]) * GIB)
    scanned = config.scanned_tokens(frames)
    more = stage("decode", shared([Work("attention", 0, kv_bytes(config, LONGER, q), q)]))
    longer = more.bytes, more.expected if pinned else None
    return Plan(where.name, device, options, scanned, visual, length, context, stages, usable, longer, sharing)


def reduced(config: StormConfig, options: PlanOptions) -> StormConfig:
    """The configuration with the pooling and sampling that the options ask for; raises UsageError."""
    chosen = {k: getattr(options, k) for k in ("sample", "temporal_pool", "spatial_pool")}
    changes = {k: v for k, v in chosen.items() if v is not None}
    if options.spatial_pool and config.token_grid % options.spatial_pool:
        raise UsageError(
            f"--spatial-pool {options.spatial_pool} does not divide the {config.token_grid} tokens of a side."
        )
    return config.model_copy(update={"reduction": config.reduction.model_copy(update=changes)})


def most_frames(config: StormConfig, where: Target, device: Device | None, options: PlanOptions) -> int:
    """The most frames, in whole pooled groups and at most those of the options, that fit; 0 where none do."""
    k = options.temporal_pool or config.reduction.temporal_pool

    def fits(groups: int) -> bool:
        return make_plan(config, where, device, replace(options, frames=groups * k)).fits

    return k * _last(fits, -(-options.frames // k))


def _last(fits: Callable[[int], bool], most: int) -> int:
    """The largest n of 0..most with fits(n), which holds for all smaller ones; fits(0) is not asked."""
    low = 0
    while low < most:
        middle = (low + most + 1) // 2
        if fits(middle):
            low = middle
        else:
            most = middle - 1
    return low

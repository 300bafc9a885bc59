"""`storm verify`: run an engine on the reference clips and compare every stage with what PyTorch made of them.

The reference was made of the weights that the bundle's graphs hold, so what rounding them cost is no part of it.
Needs neither PyTorch nor onnx, so it runs on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.bundle.engine import CheckResult, EngineRecord
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.bundle.reference import Clip, read_clip
from storm_edge.runtime.errors import ParityError
from storm_edge.runtime.llm.base import Generator
from storm_edge.runtime.llm.newline import Newline
from storm_edge.runtime.llm.splice import SplicedPrompt
from storm_edge.runtime.proof.advice import advise
from storm_edge.runtime.proof.figures import difference
from storm_edge.runtime.sessions.device import Tensor


@dataclass(frozen=True)
class Limits:
    """What a precision is allowed. `error` is the largest difference over the largest reference value."""

    cosine: float
    norm_ratio: float  # distance from 1
    error: float
    tokens: float  # share of greedy tokens that must agree
    tie: float = 0.0  # a token is left out whose two best reference logits differ by less than this share of the best


LIMITS: dict[str, Limits] = {
    # Different summation orders of the same fp32 arithmetic: measured differences are below 1e-5. Every token agrees.
    "fp32": Limits(cosine=0.999999, norm_ratio=1e-4, error=1e-3, tokens=1.0),
    # 11 bits: storm-mini's stages measure 1 - 3e-7, 4e-5 and 1e-3; deeper towers add up more roundings.
    "fp16": Limits(cosine=0.9999, norm_ratio=2e-3, error=1e-2, tokens=0.99, tie=0.01),
    # 8 bits: eight times fp16's rounding, so 64 times its squared error.
    "bf16": Limits(cosine=0.999, norm_ratio=1e-2, error=8e-2, tokens=0.98, tie=0.05),
    # 255 steps over each tensor's range, or each block of a language model's weights: storm-mini measures 0.9995, 6e-3
    # and 0.08 in the encoders (most where a clip leaves the calibrated range), 0.9992, 7e-4 and 0.06 in the decoder.
    # A kernel whose sums overflow measures 0.996. Tokens between which bf16 could not choose are left out here too.
    "int8": Limits(cosine=0.998, norm_ratio=1e-2, error=0.12, tokens=0.95, tie=0.05),
    # 3 bits of mantissa: up to 1/16 off in every weight and activation, whatever the range. storm-mini's vision tower
    # measures 0.9965, 0.013 and 0.13.
    "fp8": Limits(cosine=0.995, norm_ratio=2e-2, error=0.2, tokens=0.95, tie=0.1),
}
IN_CHUNKS = "temporal in chunks"
# Two ways through one fp32 graph.
_SAME = Limits(cosine=0.999999, norm_ratio=1e-5, error=1e-5, tokens=1.0)
# The same for the language model.
LLM_LIMITS: dict[str, Limits] = LIMITS | {
    # storm-mini's random weights measure 0.9895, 2e-3, 0.20 and 0.93, the demo's trained 0.9995, 0.021, 0.13 and 1.
    "fp8": Limits(cosine=0.98, norm_ratio=4e-2, error=0.3, tokens=0.9, tie=0.1),
    # 16 levels for a block of weights are 8% of noise in every product of random weights, the hardest there are:
    # storm-mini's logits measure 0.92 to 0.96, 1e-2 and 0.54, and no choice between tokens nearer than that can be held
    # against it. The demo's trained model measures 0.992, 0.052 and 0.38, and docs/quantization.md how often it is
    # right. This finds wrong blocks and scales, and says little of answers: `storm eval` measures those.
    "int4": Limits(cosine=0.88, norm_ratio=0.1, error=0.7, tokens=0.7, tie=0.3),
}


def memory_needed(bundle: Bundle) -> int:
    """More bytes than a verification of this bundle on a CPU can honestly take, for a limit on what a graph may ask."""
    return (1 << 30) + 8 * sum(spec.size for spec in bundle.manifest.files.values())


def verify(
    bundle: Bundle,
    record: EngineRecord,
    *,
    threads: int | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> list[CheckResult]:
    """Compare every stage, given the reference's input, then the whole chain once; returns a row per figure."""
    stages = Stages.load(bundle, record, threads=threads)
    results: list[CheckResult] = []
    for name in bundle.manifest.clips:
        progress(name)
        clip = read_clip(bundle, name)
        label = label_of(name)
        results.extend(_check_clip(bundle, stages, label, clip, record))
        if len(bundle.manifest.clips) == 1 or name == bundle.manifest.clips[0]:
            results.extend(_check_chain(bundle, stages, label, clip, record))
    if stages.temporal_encoder.has_pieces:  # last, because they take the whole graph's place
        results.extend(_check_chunks(stages, bundle.config.reduction.temporal_pool, label, clip, record))
    stages.device.watch_memory()
    return results


def require(results: list[CheckResult], bundle: Bundle, record: EngineRecord) -> None:
    """Raise ParityError naming the first failing row and what to do about it, if any row fails."""
    failed = [r for r in results if not r.passed]
    if failed:
        first = failed[0]
        raise ParityError(
            f"engine {record.name} differs from the checkpoint: {len(failed)} of {len(results)} checks failed,"
            f" first {first.stage} {first.metric} = {first.value:.6g} (limit {first.limit:.6g}) on {first.clip}:"
            f" do not use it; {advise(bundle, record, first.stage)}."
        )


def _check_clip(bundle: Bundle, stages: Stages, label: str, clip: Clip, record: EngineRecord) -> Iterator[CheckResult]:
    tokens = stages.vision(clip["frames"])
    yield from compare(label, "vision", stages.device.host(tokens), clip["tokens"], LIMITS[record.precision])
    visual = stages.temporal(clip["tokens"])
    yield from compare(label, "temporal", stages.device.host(visual), clip["visual_tokens"], LIMITS[record.precision])
    rows = prompt_rows(bundle, stages.generator, clip, clip["visual_tokens"])
    yield from check_decoder(stages.generator, label, "decoder", clip, rows, LLM_LIMITS[record.llm_precision])


def _check_chunks(stages: Stages, group: int, label: str, clip: Clip, record: EngineRecord) -> Iterator[CheckResult]:
    """The pieces of the temporal encoder against the whole of it, on a clip of four chunks of one group of frames."""
    tokens = np.resize(clip["tokens"], (4 * group, *clip["tokens"].shape[1:]))
    whole = stages.device.host(stages.temporal(tokens))
    chunks = stages.device.host(stages.temporal_encoder.in_chunks([stages.temporal_encoder.device.put(tokens)], group))
    limits = _SAME if record.precision == "fp32" else LIMITS[record.precision]
    yield from compare(label, IN_CHUNKS, chunks, whole, limits)


def _check_chain(bundle: Bundle, stages: Stages, label: str, clip: Clip, record: EngineRecord) -> Iterator[CheckResult]:
    """From frames to tokens with each stage fed by the one before it."""
    visual = stages.temporal(stages.vision(clip["frames"]))
    yield from compare(label, "chain", stages.device.host(visual), clip["visual_tokens"], LIMITS[record.precision])
    # The decoder is given what the encoders made, so what they are allowed, it is.
    limits = looser(LIMITS[record.precision], LLM_LIMITS[record.llm_precision])
    rows = stages.rows(visual, newline_of(bundle, clip))
    yield from check_decoder(stages.generator, label, "chain decoder", clip, rows, limits)


def looser(a: Limits, b: Limits) -> Limits:
    """What either of two precisions is allowed."""
    return Limits(
        min(a.cosine, b.cosine),
        max(a.norm_ratio, b.norm_ratio),
        max(a.error, b.error),
        min(a.tokens, b.tokens),
        max(a.tie, b.tie),
    )


def newline_of(bundle: Bundle, clip: Clip) -> Newline | None:
    """The line ends among a clip's visual tokens, where the checkpoint has some."""
    return Newline.of(bundle.config, int(clip["newline"][0]) if clip["newline"].size else None)


def prompt_rows(bundle: Bundle, generator: Generator, clip: Clip, visual: NDArray[np.float32]) -> Tensor:
    """Visual tokens (1, F, n, D) in host memory as rows of the prompt, where the generator wants them."""
    return generator.visual_rows(generator.device.put(visual), newline_of(bundle, clip))


def check_decoder(
    generator: Generator, label: str, stage: str, clip: Clip, rows: Tensor, limits: Limits
) -> Iterator[CheckResult]:
    """Prefill the prompt, then feed the reference's tokens one by one and compare logits and choices at every step."""
    prompt = SplicedPrompt(clip["before"].tolist(), rows, clip["after"].tolist())
    logits = generator.forced(prompt, clip["greedy"].tolist())  # (steps, vocabulary)
    yield from compare(label, stage, logits, clip["logits"], limits)
    best, second = np.sort(clip["logits"], axis=1)[:, -1:-3:-1].T  # each (steps,)
    decided = best - second >= limits.tie * np.abs(best)
    agreeing = float(np.mean((logits.argmax(axis=1) == clip["greedy"])[decided])) if decided.any() else 1.0
    yield CheckResult(
        clip=label,
        stage=stage,
        metric="greedy tokens",
        value=agreeing,
        limit=limits.tokens,
        passed=agreeing >= limits.tokens,
    )


def compare(clip: str, stage: str, ours: NDArray[Any], theirs: NDArray[Any], limits: Limits) -> Iterator[CheckResult]:
    """A row per figure of a stage's output against the reference; raises ParityError where their shapes differ."""
    if ours.shape != theirs.shape:
        raise ParityError(
            f"{stage} gives shape {list(ours.shape)} on {clip}, the reference has {list(theirs.shape)}: build it again."
        )
    d = difference(ours, theirs)
    for metric, value, limit, passed in (
        ("cosine", d.cosine, limits.cosine, d.cosine >= limits.cosine),
        ("norm ratio - 1", d.norm_ratio, limits.norm_ratio, d.norm_ratio <= limits.norm_ratio),
        ("max error", d.error, limits.error, d.error <= limits.error),
    ):
        # A NaN compares false with everything, so it fails.
        yield CheckResult(clip=clip, stage=stage, metric=metric, value=value, limit=limit, passed=passed)


def label_of(name: str) -> str:
    """What a reference clip's file is called in results."""
    return name.removeprefix("reference/").removesuffix(".safetensors")

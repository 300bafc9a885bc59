"""`storm verify`: run an engine on the reference clips and compare every stage with what PyTorch made of them.

Three figures a stage, because each alone can be fooled: cosine ignores scale, the norm ratio ignores direction, both
ignore a single wrong element. Needs neither PyTorch nor onnx, so it runs on the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from storm_edge.runtime.bundle import Bundle
from storm_edge.runtime.engine import CheckResult, EngineRecord
from storm_edge.runtime.errors import BundleError, ParityError
from storm_edge.runtime.stages import Stages, flatten_visual

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Limits:
    """What a precision is allowed. `error` is the largest difference over the largest reference value."""

    cosine: float
    norm_ratio: float  # distance from 1
    error: float
    tokens: float  # share of greedy tokens that must agree


LIMITS: dict[str, Limits] = {
    # Different summation orders of the same fp32 arithmetic: measured differences are below 1e-5. Every token agrees.
    "fp32": Limits(cosine=0.999999, norm_ratio=1e-4, error=1e-3, tokens=1.0),
}


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
        clip = _read_clip(bundle, name)
        label = name.removeprefix("reference/").removesuffix(".safetensors")
        results.extend(_check_clip(stages, label, clip, record))
        if len(bundle.manifest.clips) == 1 or name == bundle.manifest.clips[0]:
            results.extend(_check_chain(stages, label, clip, record))
    return results


def require(results: list[CheckResult], name: str) -> None:
    """Raise ParityError naming the worst failing row, if any row fails."""
    failed = [r for r in results if not r.passed]
    if failed:
        first = failed[0]
        raise ParityError(
            f"engine {name} differs from the checkpoint: {len(failed)} of {len(results)} checks failed,"
            f" first {first.stage} {first.metric} = {first.value:.6g} (limit {first.limit:.6g}) on {first.clip}:"
            " do not use it; build it again, or report it if that does not help."
        )


def _check_clip(stages: Stages, label: str, clip: Arrays, record: EngineRecord) -> Iterator[CheckResult]:
    tokens = stages.vision(clip["frames"])
    yield from _compare(label, "vision", tokens, clip["tokens"], LIMITS[record.precision])
    visual = stages.temporal(clip["tokens"])
    yield from _compare(label, "temporal", visual, clip["visual_tokens"], LIMITS[record.precision])
    yield from _check_decoder(stages, label, "decoder", clip, clip["visual_tokens"], LIMITS[record.llm_precision])


def _check_chain(stages: Stages, label: str, clip: Arrays, record: EngineRecord) -> Iterator[CheckResult]:
    """From frames to tokens with each stage fed by the one before it."""
    visual = stages.temporal(stages.vision(clip["frames"]))
    yield from _compare(label, "chain", visual, clip["visual_tokens"], LIMITS[record.precision])
    yield from _check_decoder(stages, label, "chain decoder", clip, visual, LIMITS[record.llm_precision])


def _check_decoder(
    stages: Stages, label: str, stage: str, clip: Arrays, visual: NDArray[np.float32], limits: Limits
) -> Iterator[CheckResult]:
    """Prefill the prompt, then feed the reference's tokens one by one and compare logits and choices at every step."""
    newline = int(clip["newline"][0]) if clip["newline"].size else None
    llm = stages.decoder
    before, after = (llm.embed(clip[key].tolist()) for key in ("before", "after"))
    llm.rewind(0)
    rows = [llm.append(np.concatenate([before, flatten_visual(llm, visual, newline), after]))]
    rows += [llm.append(llm.embed([int(token)])) for token in clip["greedy"][:-1]]
    logits = np.stack(rows)  # (steps, vocabulary)
    yield from _compare(label, stage, logits, clip["logits"], limits)
    agreeing = float(np.mean(logits.argmax(axis=1) == clip["greedy"]))
    yield CheckResult(
        clip=label,
        stage=stage,
        metric="greedy tokens",
        value=agreeing,
        limit=limits.tokens,
        passed=agreeing >= limits.tokens,
    )


def _compare(clip: str, stage: str, ours: NDArray[Any], theirs: NDArray[Any], limits: Limits) -> Iterator[CheckResult]:
    if ours.shape != theirs.shape:
        raise ParityError(
            f"{stage} gives shape {list(ours.shape)} on {clip}, the reference has {list(theirs.shape)}: build it again."
        )
    a, b = ours.astype(np.float64).ravel(), theirs.astype(np.float64).ravel()
    norms = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    cosine = float(a @ b) / max(norms[0] * norms[1], 1e-300)
    ratio = abs(norms[0] / max(norms[1], 1e-300) - 1)
    error = float(np.abs(a - b).max()) / max(float(np.abs(b).max()), 1e-300)
    for metric, value, limit, passed in (
        ("cosine", cosine, limits.cosine, cosine >= limits.cosine),
        ("norm ratio - 1", ratio, limits.norm_ratio, ratio <= limits.norm_ratio),
        ("max error", error, limits.error, error <= limits.error),
    ):
        # A NaN compares false with everything, so it fails.
        yield CheckResult(clip=clip, stage=stage, metric=metric, value=value, limit=limit, passed=passed)


def _read_clip(bundle: Bundle, name: str) -> Arrays:
    path = bundle.path(name)
    try:
        clip: Arrays = load_file(path)
        return {key: clip[key] for key in (*_CLIP_KEYS,)}
    except (SafetensorError, OSError, KeyError) as e:
        raise BundleError(f"{path} is damaged ({e}): copy the bundle again or repeat `storm export`.") from e


_CLIP_KEYS = ("frames", "before", "after", "newline", "tokens", "visual_tokens", "logits", "greedy")

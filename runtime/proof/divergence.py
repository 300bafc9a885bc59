"""How far an engine's logits are from PyTorch's, measured on a bundle's reference clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from storm_edge.runtime.answer.stages import Stages, flatten_visual
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.bundle.reference import read_clip


@dataclass(frozen=True)
class Divergence:
    """Means over `tokens` reference tokens: KL(reference || engine) in nats, and the share whose likeliest agrees."""

    kl: float
    agreeing: float
    tokens: int


def logit_divergence(bundle: Bundle, stages: Stages) -> Divergence:
    """Run the whole engine on every reference clip, fed with the reference's tokens; raises BundleError."""
    divergences, agreeing = [], []
    for name in bundle.manifest.clips:
        clip = read_clip(bundle, name)
        newline = int(clip["newline"][0]) if clip["newline"].size else None
        llm = stages.decoder
        visual = flatten_visual(llm, stages.temporal(stages.vision(clip["frames"])), newline)
        llm.rewind(0)
        prompt = np.concatenate([llm.embed(clip["before"].tolist()), visual, llm.embed(clip["after"].tolist())])
        rows = [llm.append(prompt)] + [llm.append(llm.embed([int(t)])) for t in clip["greedy"][:-1]]
        ours, theirs = _log_softmax(np.stack(rows)), _log_softmax(clip["logits"])  # (steps, vocabulary)
        divergences.append((np.exp(theirs) * (theirs - ours)).sum(axis=1))
        agreeing.append(ours.argmax(axis=1) == theirs.argmax(axis=1))
    kl = np.concatenate(divergences)
    # Rounding leaves a tiny negative sum where there is no difference.
    return Divergence(max(0.0, float(kl.mean())), float(np.concatenate(agreeing).mean()), len(kl))


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result

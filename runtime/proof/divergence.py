"""How far an engine's logits are from PyTorch's, measured on a bundle's reference clips."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.bundle.reference import read_clip
from storm_edge.runtime.llm.forced import divergences, log_softmax, mean_divergence
from storm_edge.runtime.llm.splice import SplicedPrompt
from storm_edge.runtime.proof.verify import newline_of


@dataclass(frozen=True)
class Divergence:
    """Means over `tokens` reference tokens: KL(reference || engine) in nats, and the share whose likeliest agrees."""

    kl: float
    agreeing: float
    tokens: int


def logit_divergence(bundle: Bundle, stages: Stages) -> Divergence:
    """Run the whole engine on every reference clip, fed with the reference's tokens; raises BundleError."""
    steps, agreeing = [], []
    for name in bundle.manifest.clips:
        clip = read_clip(bundle, name)
        rows = stages.rows(stages.temporal(stages.vision(clip["frames"])), newline_of(bundle, clip))
        prompt = SplicedPrompt(clip["before"].tolist(), rows, clip["after"].tolist())
        logits = stages.generator.forced(prompt, clip["greedy"].tolist())
        ours, theirs = log_softmax(logits), log_softmax(clip["logits"])  # (steps, vocabulary)
        steps.append(divergences(theirs, ours))
        agreeing.append(ours.argmax(axis=1) == theirs.argmax(axis=1))
    agreed = np.concatenate(agreeing)
    return Divergence(mean_divergence(steps), float(agreed.mean()), len(agreed))

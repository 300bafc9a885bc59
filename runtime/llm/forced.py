"""Comparing the logits of forced tokens."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Float64Array = npt.NDArray[np.float64]


def log_softmax(logits: npt.NDArray[np.float32]) -> Float64Array:
    """Logarithms of the probabilities, for logits [steps, vocabulary]."""
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    result: Float64Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result


def divergences(theirs: Float64Array, ours: Float64Array) -> Float64Array:
    """KL(theirs || ours) in nats at every step, for logarithms of probabilities [steps, vocabulary]."""
    result: Float64Array = (np.exp(theirs) * (theirs - ours)).sum(axis=1)
    return result


def mean_divergence(steps: list[Float64Array]) -> float:
    """The mean over all steps; rounding leaves a tiny negative one where there is no difference, which becomes 0."""
    return max(0.0, float(np.concatenate(steps).mean()))

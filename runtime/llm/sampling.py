"""Choosing the next token from logits. Without options: the most likely one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral, Real

import numpy as np
import numpy.typing as npt

from storm_edge.runtime.errors import EngineError, UsageError
from storm_edge.runtime.sessions.device import HOST, Device, Tensor

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class SamplingOptions:
    """How an answer is drawn, and where it ends; raises UsageError for values that mean nothing.

    `stop` takes one string or several; none of them is shown.
    """

    temperature: float = 0.0  # 0: greedy
    top_k: int = 0  # 0: all
    top_p: float = 1.0
    repetition_penalty: float = 1.0  # of tokens already in the answer, as in CTRL (arXiv 1909.05858)
    seed: int | None = None  # None: different every time
    stop: str | Sequence[str] = ()
    max_tokens: int = 256

    def __post_init__(self) -> None:
        # A string is a sequence of strings, and its letters would all be stops.
        stop = (self.stop,) if isinstance(self.stop, str) else self.stop
        strings = isinstance(stop, list | tuple) and all(isinstance(text, str) and text for text in stop)
        for name, valid, wanted in (
            ("temperature", _number(self.temperature) and self.temperature >= 0, "a number, 0 (greedy) or above"),
            ("top_k", _whole(self.top_k) and self.top_k >= 0, "a whole number, 0 (all tokens) or above"),
            ("top_p", _number(self.top_p) and 0 < self.top_p <= 1, "a number above 0 and at most 1"),
            (
                "repetition_penalty",
                _number(self.repetition_penalty) and self.repetition_penalty > 0,
                "a number above 0",
            ),
            ("seed", self.seed is None or (_whole(self.seed) and self.seed >= 0), "a whole number, 0 or above"),
            ("stop", strings, "one string or several, none of them empty"),
            ("max_tokens", _whole(self.max_tokens) and self.max_tokens >= 1, "a whole number, 1 or above"),
        ):
            if not valid:
                raise UsageError(f"{name} {_shown(getattr(self, name))} makes no sense: it must be {wanted}.")
        object.__setattr__(self, "stop", tuple(stop))
        if self.temperature == 0 and (self.top_k or self.top_p < 1):
            raise UsageError("top_k and top_p change nothing at temperature 0: set a temperature, or leave them out.")


def _number(value: object) -> bool:
    """Whether a value is a finite number; a bool, which Python counts among them, is none."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:
        return False


def _whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _shown(value: object) -> str:
    try:
        text = ascii(value)
    except ValueError:  # a whole number of more digits than Python writes
        text = "with its thousands of digits"
    return text if len(text) <= 40 else text[:40] + "..."


def _not_finite() -> EngineError:
    return EngineError(
        "the language model's logits are not finite numbers: build its engine with a wider --llm-precision, or check it"
        " with storm verify."
    )


class Sampler:
    """Draws one token after the other; equal options with a seed give equal draws."""

    def __init__(self, options: SamplingOptions, device: Device = HOST) -> None:
        self._options, self._device = options, device
        self._random = np.random.default_rng(options.seed)

    def next(self, logits: Tensor, generated: Sequence[int]) -> int:
        """A token id for logits [vocabulary] of the device, `generated` being the answer so far.

        The likeliest one is found on the device; for everything else the logits are copied to the host.
        Raises EngineError where the logits are not numbers.
        """
        if self._options.temperature == 0 and self._options.repetition_penalty == 1:
            token = self._device.argmax(logits)
            if token is None:
                raise _not_finite()
            return token
        scores = self._device.host(logits).astype(np.float64)
        if not np.isfinite(scores).all():
            raise _not_finite()
        self._penalize(scores, generated)
        if self._options.temperature == 0:
            return int(scores.argmax())
        probabilities = self._probabilities(scores)
        return int(self._random.choice(len(probabilities), p=probabilities))

    def _penalize(self, scores: Float64Array, generated: Sequence[int]) -> None:
        seen = np.unique(np.asarray(generated, dtype=np.int64))
        penalty = self._options.repetition_penalty
        scores[seen] = np.where(scores[seen] > 0, scores[seen] / penalty, scores[seen] * penalty)

    def _probabilities(self, scores: Float64Array) -> Float64Array:
        # The maximum goes first, so that no temperature can overflow.
        scores = (scores - scores.max()) / self._options.temperature
        top_k, top_p = self._options.top_k, self._options.top_p
        if 0 < top_k < len(scores):
            scores[scores < np.partition(scores, -top_k)[-top_k]] = -np.inf
        probabilities = np.exp(scores)
        probabilities /= probabilities.sum()
        if top_p < 1:
            order = np.argsort(-probabilities, kind="stable")
            # A token stays while those before it have not reached top_p, so the first always stays.
            before = np.cumsum(probabilities[order]) - probabilities[order]
            probabilities[order[before >= top_p]] = 0.0
            probabilities /= probabilities.sum()
        return probabilities

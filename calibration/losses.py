"""What quantizing a set of layers costs: how far off the visual tokens are, or the answers made of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from storm_edge.calibration.switched import Float32, Key, SwitchedEncoders
from storm_edge.runtime.bundle.manifest import Bundle
from storm_edge.runtime.llm.base import Generator
from storm_edge.runtime.llm.forced import divergences, log_softmax, mean_divergence
from storm_edge.runtime.llm.newline import newline_of_model
from storm_edge.runtime.llm.prompt import ChatPrompt, Message
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.llm.splice import SplicedPrompt

ANSWER_TOKENS = 8  # of an answer, compared one by one


class Loss(Protocol):
    """A figure of visual tokens, 0 for those of the fp32 encoders; `power` makes those of single layers add up."""

    name: str
    power: int

    def __call__(self, visual: Sequence[Float32]) -> float:
        """The loss of visual tokens, a clip each."""
        ...


class TokenLoss:
    """The relative error of the visual tokens over all clips: |ours - theirs| / |theirs|."""

    name = "relative error of the visual tokens"
    power = 2  # errors of different layers are all but uncorrelated, so their squares add

    def __init__(self, reference: Sequence[Float32]) -> None:
        self._reference = reference

    def __call__(self, visual: Sequence[Float32]) -> float:
        """The relative error."""
        return relative_error(visual, self._reference)


class AnswerLoss:
    """The mean KL divergence, in nats, of the likely next tokens at every step of fp32's answers to questions."""

    name = "divergence of the answers (nats)"
    power = 1

    def __init__(
        self,
        bundle: Bundle,
        llm: Generator,
        questions: Sequence[str],
        reference: Sequence[Float32],
    ) -> None:
        """`questions` are about the clips that `reference` is of, one each."""
        self._llm = llm
        chat = ChatPrompt.read(bundle.texts(bundle.manifest.tokenizer), bundle.root / bundle.manifest.tokenizer)
        self.newline = newline_of_model(bundle.config, chat)
        self._prompts = [chat.render([Message("user", question, video=True)]) for question in questions]
        self._answers: list[list[int]] = []
        self._expected: list[NDArray[np.float64]] = []
        for i, visual in enumerate(reference):
            prompt = self._prompt(llm, i, visual)
            greedy = list(llm.start(prompt, SamplingOptions(max_tokens=ANSWER_TOKENS), ends=()))
            ended = next((n for n, token in enumerate(greedy, 1) if token in chat.eos_ids), len(greedy))
            self._answers.append(greedy[:ended])
            self._expected.append(log_softmax(llm.forced(prompt, self._answers[-1])))

    @property
    def tokens(self) -> list[tuple[list[int], list[int]]]:
        """Of every prompt what stands before the visual tokens, and what after them with fp32's answer."""
        return [(p.before, [*p.after, *answer]) for p, answer in zip(self._prompts, self._answers, strict=True)]

    def __call__(self, visual: Sequence[Float32]) -> float:
        """The divergence."""
        return self.of(self._llm, visual)

    def of(self, llm: Generator, visual: Sequence[Float32]) -> float:
        """The divergence of another language model's answers."""
        steps = []
        for i, (answer, expected) in enumerate(zip(self._answers, self._expected, strict=True)):
            logits = llm.forced(self._prompt(llm, i, visual[i]), answer)
            steps.append(divergences(expected, log_softmax(logits)))
        return mean_divergence(steps)

    def _prompt(self, llm: Generator, i: int, visual: Float32) -> SplicedPrompt:
        prompt = self._prompts[i]
        return SplicedPrompt(prompt.before, llm.visual_rows(visual, self.newline), prompt.after)


def relative_error(ours: Sequence[Float32], theirs: Sequence[Float32]) -> float:
    """|ours - theirs| / |theirs| over all arrays together."""
    off = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(ours, theirs, strict=True))
    return float(np.sqrt(off / sum(float(np.square(b, dtype=np.float64).sum()) for b in theirs)))


class Probe:
    """Clips through switched encoders, with any set of layers quantized."""

    def __init__(self, encoders: SwitchedEncoders, clips: Sequence[NDArray[np.uint8]]) -> None:
        self._encoders, self._clips = encoders, clips
        self._tokens = [encoders.vision(clip, ()) for clip in clips]  # each (T, N, D)
        self.reference = [encoders.temporal(tokens, ()) for tokens in self._tokens]

    def visual(self, quantized: Collection[Key]) -> list[Float32]:
        """Visual tokens, a clip each."""
        return self._temporal(self._vision(quantized), quantized)

    def alone(self, key: Key) -> tuple[list[Float32], float]:
        """Visual tokens where one layer is quantized, and the relative error of what its own stage gives out."""
        tokens = self._vision({key})
        visual = self._temporal(tokens, {key})
        made = (tokens, self._tokens) if key[0] == "vision" else (visual, self.reference)
        return visual, relative_error(*made)

    def _vision(self, quantized: Collection[Key]) -> list[Float32]:
        if not any(stage == "vision" for stage, _ in quantized):
            return self._tokens
        return [self._encoders.vision(clip, quantized) for clip in self._clips]

    def _temporal(self, tokens: Sequence[Float32], quantized: Collection[Key]) -> list[Float32]:
        return [self._encoders.temporal(clip, quantized) for clip in tokens]

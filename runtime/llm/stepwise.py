"""The generator over a language model that computes step by step: prefill with reuse, the loop, and forced tokens.

The language model keeps the keys and values of one token sequence. What a new prompt shares with it from the start is
not computed again: the visual tokens of a video for each further question, the conversation for each further turn.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterator, Sequence

import numpy as np

from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.llm.base import Finish, Float32Array, LanguageModel
from storm_edge.runtime.llm.newline import Newline
from storm_edge.runtime.llm.sampling import Sampler, SamplingOptions
from storm_edge.runtime.llm.splice import SplicedPrompt, flatten_visual, splice
from storm_edge.runtime.sessions.device import Device, Tensor


class StepwiseGenerator:
    """Implements `Generator`."""

    def __init__(self, model: LanguageModel) -> None:
        self.model = model
        self.held: list[int] = []  # keys of the positions that the model holds and that may be reused
        self.newest: StepwiseStream | None = None

    @property
    def device(self) -> Device:
        """The model's."""
        return self.model.device

    @property
    def capacity(self) -> int:
        """Tokens that fit."""
        return self.model.capacity

    def visual_rows(self, visual: Tensor, newline: Newline | None) -> Tensor:
        """Visual tokens [1, frames, n, D] as rows of a prompt, where the model's embeddings are."""
        return flatten_visual(self.model.device, self.model.embed, visual, newline)

    def start(self, prompt: SplicedPrompt, options: SamplingOptions, ends: Collection[int]) -> StepwiseStream:
        """Prefill what is new in a prompt; earlier streams become stale."""
        model, keys = self.model, prompt.keys
        if len(keys) >= model.capacity:
            raise UsageError(
                f"the prompt has {len(keys)} tokens, {len(prompt.rows)} of them visual, the language model holds"
                f" {model.capacity} with the answer: shorten the question, take fewer frames or add temporal sampling."
            )
        prefix = len(prompt.before) + len(prompt.rows)
        reused = sum(
            1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(self.held, keys, strict=False))
        )
        if not prompt.continues:
            reused = min(reused, prefix)
        reused = min(reused, len(keys) - 1)  # the last position is needed for its logits
        self._rewind(reused)
        if reused < prefix:
            model.append(model.device.concatenate([model.embed(prompt.before), prompt.rows])[reused:])
        self.held = keys[: model.position]
        logits = model.append(model.embed(prompt.after)[model.position - prefix :])
        self.held = keys
        self.newest = StepwiseStream(self, logits, options, ends, reused)
        return self.newest

    def forced(self, prompt: SplicedPrompt, tokens: Sequence[int]) -> Float32Array:
        """Logits [len(tokens), vocabulary] before each of `tokens`; earlier streams become stale."""
        self._rewind(0)
        model = self.model
        rows = [model.device.host(model.append(splice(model.device, model.embed, prompt)))]
        rows += [model.device.host(model.append(model.embed([token]))) for token in tokens[:-1]]
        return np.stack(rows)

    def worker(self) -> StepwiseGenerator:
        """Another one over a worker of the model."""
        return StepwiseGenerator(self.model.worker())

    def _rewind(self, position: int) -> None:
        self.newest = None
        self.held = self.held[:position]
        self.model.rewind(position)


class StepwiseStream:
    """Implements `TokenStream`."""

    def __init__(
        self,
        generator: StepwiseGenerator,
        logits: Tensor,
        options: SamplingOptions,
        ends: Collection[int],
        reused: int,
    ) -> None:
        self._generator, self._logits, self._sampler = generator, logits, Sampler(options, generator.device)
        self._most, self._ends, self._appended = options.max_tokens, ends, 0
        self.ids: list[int] = []
        self.finish: Finish | None = None
        self.reused = reused

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self.finish is not None:
            raise StopIteration
        if self._appended < len(self.ids):
            self._append(self.ids[-1])
        token = self._sampler.next(self._logits, self.ids)
        if token in self._ends:
            self.finish = "end"
            raise StopIteration
        self.ids.append(token)
        model = self._generator.model
        if len(self.ids) == self._most or model.position == model.capacity:
            self.finish = "length"
        return token

    def _append(self, token: int) -> None:
        if self._generator.newest is not self:
            raise UsageError(
                "another question was asked on this pipeline before this answer was read to its end: read an answer to"
                " its end first, or use another pipeline (pipeline.worker())."
            )
        self._logits = self._generator.model.append(self._generator.model.embed([token]))
        self._generator.held.append(token)
        self._appended += 1

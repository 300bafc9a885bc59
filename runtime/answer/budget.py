"""Whether a clip fits, before anything of it is decoded."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import NoReturn

from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.config.schema import StormConfig
from storm_edge.runtime.config.sizes import chunk_frames, whole_frames
from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.plan.memory import clip_bytes, temporal_activations, visual_bytes


@dataclass(frozen=True)
class Budget:
    """What there is room for: `capacity` tokens in the language model, which sees every `sample`-th pooled frame, and
    `free` bytes where the temporal encoder runs, 0 where nobody knows. It has `pieces`, or computes clips at once.
    """

    config: StormConfig
    sample: int
    capacity: int
    free: int
    precision: str
    pieces: bool

    @classmethod
    def of(cls, config: StormConfig, stages: Stages, sample: int) -> Budget:
        """As it is now."""
        encoder = stages.temporal_encoder
        precision = "fp32" if encoder.device.memory == "cpu" else "fp16"
        return cls(
            config, sample, stages.generator.capacity, encoder.device.free_bytes(), precision, encoder.has_pieces
        )

    def check(self, frames: int) -> None:
        """Raise UsageError where a clip of so many frames does not fit."""
        self._check_tokens(frames)
        if self.free and self.bytes_of(frames) > self.free:
            self._refuse(frames, self.bytes_of(frames))

    def check_growing(self, frames: int) -> None:
        """The same of a clip that may become longer, which takes less than a short one where it goes in pieces."""
        self._check_tokens(frames)
        at_once = min(frames, chunk_frames(self.config)) if self.pieces else frames
        if self.free and (needed := self._bytes(frames, at_once)) > self.free:
            self._refuse(frames, needed)

    def bytes_of(self, frames: int) -> int:
        """What the temporal encoder takes for a clip, and what goes in and out of it."""
        return self._bytes(frames, frames)

    def _bytes(self, frames: int, at_once: int) -> int:
        k = self.config.reduction.temporal_pool
        frames, at_once = -(-frames // k) * k, -(-at_once // k) * k
        activations = temporal_activations(self.config, at_once, self.precision, pieces=self.pieces)
        clip = clip_bytes(self.config, frames, self.precision, pieces=self.pieces)
        return int(activations + clip + visual_bytes(self.config, frames, self.precision))

    def _check_tokens(self, frames: int) -> None:
        tokens = self.config.visual_tokens(frames, self.sample)
        if tokens >= self.capacity:
            raise UsageError(
                f"{frames} frames make {tokens} visual tokens, the language model holds {self.capacity} with question"
                " and answer: take fewer frames, or add temporal sampling (sample=2 halves the tokens)."
            )

    def _refuse(self, frames: int, needed: int) -> NoReturn:
        most = self._most(frames)
        advice = f"take at most {most} frames, or end other programs" if most else "end other programs"
        raise UsageError(
            f"{frames} frames take {needed / 2**30:.1f} GiB beside the model, and {self.free / 2**30:.1f} are free:"
            f" {advice}."
        )

    def _most(self, frames: int) -> int:
        """The most of up to `frames` frames that fit: clips in pieces first, then those computed at once."""
        edge = min(whole_frames(self.config), frames) if self.pieces else 0
        for low, high in ((edge + 1, frames), (1, edge)):
            if fitting := bisect_right(range(low, high + 1), self.free, key=self.bytes_of):
                return low + fitting - 1
        return 0

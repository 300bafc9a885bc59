"""Whether a clip fits, before anything of it is decoded."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

from storm_edge.runtime.answer.stages import Stages
from storm_edge.runtime.config.schema import StormConfig
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
        """Raise UsageError where so many frames do not fit."""
        tokens = self.config.visual_tokens(frames, self.sample)
        if tokens >= self.capacity:
            raise UsageError(
                f"{frames} frames make {tokens} visual tokens, the language model holds {self.capacity} with question"
                " and answer: take fewer frames, or add temporal sampling (sample=2 halves the tokens)."
            )
        needed = self.bytes_of(frames)
        if self.free and needed > self.free:
            most = bisect_right(range(1, frames + 1), self.free, key=self.bytes_of)
            advice = f"take at most {most} frames, or end other programs" if most else "end other programs"
            raise UsageError(
                f"{frames} frames take {needed / 2**30:.1f} GiB beside the model, and {self.free / 2**30:.1f} are free:"
                f" {advice}."
            )

    def bytes_of(self, frames: int) -> int:
        """What the temporal encoder takes for a clip, and what goes in and out of it."""
        k = self.config.reduction.temporal_pool
        frames = -(-frames // k) * k
        activations = temporal_activations(self.config, frames, self.precision, pieces=self.pieces)
        clip = clip_bytes(self.config, frames, self.precision, pieces=self.pieces)
        return int(activations + clip + visual_bytes(self.config, frames, self.precision))

"""The three stages of an engine, loaded: vision, temporal, decoder, with the embedding table beside it.

pipeline and verify both drive these, so what is verified is what answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from storm_edge.runtime.answer.temporal import TemporalEncoder, load_temporal
from storm_edge.runtime.bundle.engine import EngineRecord, build_again
from storm_edge.runtime.bundle.manifest import STAGES, Bundle
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.llm.base import Generator
from storm_edge.runtime.llm.newline import Newline
from storm_edge.runtime.runners import RUNNERS, function
from storm_edge.runtime.sessions.base import Session
from storm_edge.runtime.sessions.device import HOST, Device, Tensor, open_device


@dataclass(frozen=True)
class Encoders:
    """Vision and temporal, loaded: whoever runs both, to answer, to verify or to calibrate, runs them here.

    A stage takes tensors that the other gave, or in host memory, and gives them where it runs; they cross between host
    and GPU here and nowhere else. `device` is the GPU's where any stage of the engine runs there, else the host.
    """

    vision_session: Session
    temporal_encoder: TemporalEncoder
    temporal_pool: int
    device: Device = HOST

    @property
    def batch(self) -> int:
        """Frames that `vision` computes at once."""
        return self.vision_session.batch

    def tokens(self, frames: int | None = None) -> ClipTokens:
        """Where the tokens of a clip are gathered, with room for `frames` from the start where that is known."""
        return ClipTokens(self.vision_session.device, self.temporal_pool, frames)

    def vision(self, frames: NDArray[np.uint8]) -> Tensor:
        """Frames (T, H, W, 3) in host memory -> tokens (T, N, D), a batch at a time."""
        if len(frames) <= self.batch:
            return self.vision_session.run(frames=frames)["tokens"]
        gathered = self.tokens(len(frames))
        while gathered.count < len(frames):
            batch = frames[gathered.count : gathered.count + self.batch]
            gathered.add(self.vision_session.run(frames=batch)["tokens"])
        return gathered.tokens

    def temporal(self, tokens: Tensor, *, overwrite: bool = False) -> Tensor:
        """Tokens (T, N, D) -> visual tokens (1, ceil(T / k), N / p, D); the last frame fills up the last group of k.

        With `overwrite` a long clip's tokens may be lost, which saves a copy.
        """
        device = self.temporal_encoder.device
        tokens = self._at(device, tokens)
        if len(tokens) % self.temporal_pool:
            filled = ClipTokens(device, self.temporal_pool, len(tokens))
            filled.add(tokens)
            tokens, overwrite = filled.whole_groups(), True
        return self.temporal_encoder.run(tokens, overwrite=overwrite)

    def _at(self, device: Device, tensor: Tensor) -> Tensor:
        """A tensor of any stage where another takes it."""
        moved: Tensor = device.put(tensor if device is self.device else self.device.host(tensor))
        return moved


@dataclass(frozen=True, kw_only=True)
class Stages(Encoders):
    """An engine's loaded graphs: the encoders, and what generates from their visual tokens."""

    generator: Generator

    @classmethod
    def load(cls, bundle: Bundle, record: EngineRecord, *, threads: int | None = None) -> Stages:
        """Load the graphs an engine names; raises EngineError or BundleError."""
        missing = [stage for stage in STAGES if stage not in record.graphs]
        if missing or record.state != "built":
            what = f"has no {' and no '.join(missing)}" if missing else f"is only {record.state}"
            raise EngineError(f"engine {record.name} {what}: `{build_again(bundle, record)}`.")
        runners = {stage: RUNNERS[record.runners[stage]] for stage in STAGES}
        for stage in ("vision", "temporal"):
            if not runners[stage].session:
                words = runners[stage].words
                raise EngineError(f"{words} runs language models alone, not {stage}: build {record.name} again.")
        device = HOST if all(runner.device == "cpu" for runner in runners.values()) else open_device("cuda")
        of = {stage: HOST if runner.device == "cpu" else device for stage, runner in runners.items()}
        vision = function(runners["vision"].session)(bundle, record, "vision", of["vision"], threads)
        temporal = load_temporal(bundle, record, of["temporal"], threads)
        generator = function(runners["decoder"].generator)(bundle, record, of["decoder"], threads)
        return cls(vision, temporal, bundle.config.reduction.temporal_pool, device, generator=generator)

    def worker(self) -> Stages:
        """The same loaded graphs with a generator of its own sequence; raises EngineError."""
        return replace(self, generator=self.generator.worker())

    def rows(self, visual: Tensor, newline: Newline | None) -> Tensor:
        """Visual tokens (1, F, n, D) as rows of a prompt (F * n, D), where the generator wants them."""
        return self.generator.visual_rows(self._at(self.generator.device, visual), newline)


class ClipTokens:
    """The tokens of a clip's frames (T, N, D), held once, in one piece."""

    def __init__(self, device: Device, group: int, frames: int | None) -> None:
        """`group` frames are pooled together; `frames` is how many will come, as far as that is known."""
        self._device, self._group, self._expected = device, group, frames or 0
        self._room: Tensor | None = None
        self.count = 0

    def add(self, tokens: Tensor) -> None:
        """Take the tokens (n, N, D) of the next frames."""
        end = self.count + len(tokens)
        if self._room is None or end > len(self._room):
            more = max(end, self._expected, 2 * self.count)
            room: Tensor = self._device.empty((-(-more // self._group) * self._group, *tokens.shape[1:]), tokens.dtype)
            if self._room is not None:
                self._device.write(room[: self.count], self._room[: self.count])
            self._room = room
        self._device.write(self._room[self.count : end], tokens)
        self.count = end

    @property
    def tokens(self) -> Tensor:
        """What was added; raises ValueError where nothing was."""
        if self._room is None:
            raise ValueError("no frames were added")
        tokens: Tensor = self._room[: self.count]
        return tokens

    def whole_groups(self) -> Tensor:
        """The same with the last frame repeated until its group is full."""
        last, full = self.tokens[-1:], -(-self.count // self._group) * self._group
        assert self._room is not None
        if full > self.count:
            self._device.write(self._room[self.count : full], last)
        groups: Tensor = self._room[:full]
        return groups

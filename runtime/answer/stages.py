"""The three stages of an engine, loaded: vision, temporal, decoder, with the embedding table beside it.

pipeline and verify both drive these, so what is verified is what answers.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storm_edge.runtime.answer.clip_tokens import ClipTokens
from storm_edge.runtime.answer.streaming import TemporalStream
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
        return ClipTokens(self.vision_session.device, self.temporal_pool, frames, self.temporal_encoder.long)

    def vision(self, frames: NDArray[np.uint8]) -> Tensor:
        """Frames (T, H, W, 3) in host memory -> tokens (T, N, D), a batch at a time."""
        if len(frames) <= self.batch:
            return self.vision_session.run(frames=frames)["tokens"]
        gathered = ClipTokens(self.vision_session.device, self.temporal_pool, len(frames))
        while gathered.count < len(frames):
            batch = frames[gathered.count : gathered.count + self.batch]
            gathered.add(self.vision_session.run(frames=batch)["tokens"])
        tokens: Tensor = gathered.blocks()[0][: len(frames)]
        return tokens

    def temporal(self, tokens: Tensor) -> Tensor:
        """Tokens (T, N, D) -> visual tokens (1, ceil(T / k), N / p, D); the last frame fills up the last group of k."""
        device = self.temporal_encoder.device
        clip = ClipTokens(device, self.temporal_pool, len(tokens))
        clip.add(self._at(device, tokens))
        return self.temporal_encoder.run(clip.blocks())

    def temporal_of(self, clip: ClipTokens) -> Tensor:
        """The same of tokens that were gathered here, which are lost."""
        return self.temporal_encoder.run([self._at(self.temporal_encoder.device, block) for block in clip.blocks()])

    def stream(self) -> TemporalStream:
        """The temporal encoder of a live video; raises UsageError where it looks backwards too, EngineError."""
        return TemporalStream(self.temporal_encoder)

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
        open_vision, open_generator = function(runners["vision"].session), function(runners["decoder"].generator)
        generator, vision, temporal = _opened(
            lambda: open_generator(bundle, record, of["decoder"], threads),
            lambda: open_vision(bundle, record, "vision", of["vision"], threads),
            lambda: load_temporal(bundle, record, of["temporal"], threads),
            at_once=device is HOST,
        )
        return cls(vision, temporal, bundle.config.reduction.temporal_pool, device, generator=generator)

    def worker(self) -> Stages:
        """The same loaded graphs with a generator of its own sequence; raises EngineError."""
        return replace(self, generator=self.generator.worker())

    def rows(self, visual: Tensor, newline: Newline | None) -> Tensor:
        """Visual tokens (1, F, n, D) as rows of a prompt (F * n, D), where the generator wants them."""
        return self.generator.visual_rows(self._at(self.generator.device, visual), newline)


def _opened(first: Callable[[], Any], *others: Callable[[], Any], at_once: bool) -> list[Any]:
    """What the functions return; `at_once` all run beside each other, the first in this thread, else it runs last."""
    if not at_once:
        opened = [other() for other in others]
        return [first(), *opened]
    with ThreadPoolExecutor(len(others)) as pool:
        waiting = [pool.submit(other) for other in others]
        return [first(), *(other.result() for other in waiting)]

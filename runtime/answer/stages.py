"""The three stages of an engine, loaded: vision, temporal, decoder, with the embedding table beside it.

pipeline and verify both drive these, so what is verified is what answers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from storm_edge.runtime.bundle.engine import EngineRecord
from storm_edge.runtime.bundle.manifest import STAGES, Bundle, Stage
from storm_edge.runtime.config.sizes import VISION_BATCH
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.llm.base import Generator
from storm_edge.runtime.runners import RUNNERS, function
from storm_edge.runtime.sessions.base import Session

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Stages:
    """An engine's loaded graphs."""

    vision_session: Session
    temporal_session: Session
    generator: Generator
    temporal_pool: int

    @classmethod
    def load(cls, bundle: Bundle, record: EngineRecord, *, threads: int | None = None) -> Stages:
        """Load the graphs an engine names; raises EngineError or BundleError."""
        missing = [stage for stage in STAGES if stage not in record.graphs]
        if missing or record.state != "built":
            what = f"has no {' and no '.join(missing)}" if missing else f"is only {record.state}"
            raise EngineError(f"engine {record.name} {what}: `storm build {bundle.root} --target {record.target}`.")
        vision, temporal = (_session(bundle, record, stage, threads) for stage in ("vision", "temporal"))
        generator = function(RUNNERS[record.runners["decoder"]].generator)(bundle, record, threads)
        return cls(vision, temporal, generator, temporal_pool=bundle.config.reduction.temporal_pool)

    def worker(self) -> Stages:
        """The same loaded graphs with a generator of its own sequence; raises EngineError."""
        return replace(self, generator=self.generator.worker())

    def vision(self, frames: NDArray[np.uint8]) -> Float32:
        """Frames (T, H, W, 3) -> tokens (T, N, D), a batch at a time."""
        batches = [
            self.vision_session.run(frames=frames[i : i + VISION_BATCH])["tokens"]
            for i in range(0, len(frames), VISION_BATCH)
        ]
        return np.concatenate(batches)

    def temporal(self, tokens: Float32) -> Float32:
        """Tokens (T, N, D) -> visual tokens (1, ceil(T / k), N / p, D); the last frame fills up the last group of k."""
        if missing := -len(tokens) % self.temporal_pool:
            tokens = np.concatenate([tokens, np.repeat(tokens[-1:], missing, axis=0)])
        return self.temporal_session.run(tokens=tokens[None])["visual_tokens"]


def _session(bundle: Bundle, record: EngineRecord, stage: Stage, threads: int | None) -> Session:
    runner = RUNNERS[record.runners[stage]]
    if not runner.session:
        raise EngineError(f"{runner.words} runs language models alone, not {stage}: build {record.name} again.")
    session: Session = function(runner.session)(bundle, record, stage, threads)
    return session

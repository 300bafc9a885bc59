"""A loaded engine in two hands: one that encodes videos, and one that answers; each for one thread at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

from storm_edge.runtime.answer.answer import Answer
from storm_edge.runtime.answer.pipeline import Pipeline, Video
from storm_edge.runtime.errors import EngineError
from storm_edge.runtime.llm.prompt import Message
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.runtime.video import FrameBatch


class Engine:
    """`encoder` and `parallel` answering pipelines on the same weights.

    Engines that cannot share their weights have one pipeline, and encoding and answering take turns on it.
    """

    def __init__(self, pipeline: Pipeline, parallel: int = 1) -> None:
        self.encoder = pipeline
        self.turn: AbstractContextManager[object] = nullcontext()
        self.shared = True
        try:
            self.answering = [pipeline.worker() for _ in range(parallel)]
        except EngineError:
            self.answering, self.turn, self.shared = [pipeline], threading.RLock(), False

    @property
    def name(self) -> str:
        """The engine's, in its bundle."""
        return self.encoder.engine.name

    def encode(self, frames: Iterable[FrameBatch], sample: int | None) -> Video:
        """Encode frames as they come; raises UsageError, VideoError, EngineError."""
        # A pipeline that also answers is not kept waiting for the decoder.
        batches = frames if self.shared else list(frames)
        with self.turn:
            return self.encoder.encode(batches, sample=sample)

    def begin(self, pipeline: Pipeline, video: Video, messages: list[Message], options: SamplingOptions) -> Answer:
        """Prefill a question on one of `answering`; raises UsageError, EngineError."""
        with self.turn, pipeline.turns.held():
            return pipeline.answer(video, messages, options)

    def next(self, pieces: Iterator[str]) -> str | None:
        """The next piece of an answer; None at its end."""
        with self.turn:
            return next(pieces, None)

"""One question on its way, and what it tells whoever waits for its answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from storm_edge.runtime.answer.answer import AnswerStats
from storm_edge.runtime.llm.prompt import Message
from storm_edge.runtime.llm.sampling import SamplingOptions
from storm_edge.server.errors import RequestError
from storm_edge.server.sources import Source
from storm_edge.server.streams import LiveClip
from storm_edge.server.video_cache import EncodedVideo, VideoKey


@dataclass(frozen=True)
class Begun:
    """The answer begins; its video was in the cache or not."""

    encoded: EncodedVideo
    cached: bool
    waited: float  # seconds in line
    stats: AnswerStats


@dataclass(frozen=True)
class Piece:
    """Text that follows."""

    text: str


@dataclass(frozen=True)
class Ended:
    """The answer is complete."""

    stats: AnswerStats


@dataclass(frozen=True)
class Failed:
    """There is no answer, or no more of it."""

    error: BaseException


Event = Begun | Piece | Ended | Failed


@dataclass(eq=False)
class Job:
    """A question about a video. `tell` is called from the server's threads, and last with Ended or Failed."""

    whose: Hashable  # takes turns with others
    source: Source | LiveClip
    key: VideoKey
    messages: list[Message]
    options: SamplingOptions
    deadline: float  # of time.monotonic()
    tell: Callable[[Event], None]
    cached: bool = True
    encoded: EncodedVideo | None = None
    release: Callable[[], None] = lambda: None  # gives back its place among the encoded that wait
    arrived: float = field(default_factory=time.monotonic)
    _error: RequestError | None = None
    _hooks: list[Callable[[], None]] = field(default_factory=list)

    def cancel(self, error: RequestError) -> None:
        """End the answer before its next token. From any thread."""
        self._error = error
        for hook in self._hooks[:]:
            hook()

    def on_cancel(self, hook: Callable[[], None]) -> None:
        """Have something called when the job is cancelled, or at once where it is already."""
        self._hooks.append(hook)
        if self._error is not None:
            hook()

    def check(self) -> None:
        """Raises RequestError where the answer is not wanted any more, or its time is up."""
        if self._error is not None:
            raise self._error
        if time.monotonic() > self.deadline:
            raise too_late()


def too_late() -> RequestError:
    """What is said where an answer's time is up."""
    return RequestError(504, "the answer takes longer than this server allows (--timeout).", "timeout")

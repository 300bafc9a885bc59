"""An answer while it is computed, and what it took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

from storm_edge.runtime.answer.conversation import Turns
from storm_edge.runtime.llm.generate import Generation
from storm_edge.runtime.machine.memory import peak_device_bytes, peak_memory_bytes
from storm_edge.runtime.sessions.device import Device


@dataclass(frozen=True)
class AnswerStats:
    """What an answer took. `seconds` is by stage; those of the video were spent once, when it was opened."""

    frames: int
    reused_frames: int
    visual_tokens: int
    prompt_tokens: int
    reused_tokens: int
    answer_tokens: int
    finish: str
    seconds: dict[str, float]
    peak_memory_bytes: int
    peak_device_bytes: int = 0  # of a GPU, since it was opened; 0 without one


class Answer:
    """A streaming answer: iterate for its pieces; `text` and `stats` are complete when the iteration is.

    Raises UsageError where another question was asked on the pipeline before this answer's end was computed, or where
    the pipeline computes for another caller at that moment.
    """

    def __init__(self, generation: Generation, begun: AnswerStats, turns: Turns, device: Device):
        self._generation, self._begun, self._turns, self._device = generation, begun, turns, device
        self._decode_seconds = 0.0
        self.text = ""

    def __iter__(self) -> Iterator[str]:
        while True:
            with self._turns.held():
                start = time.perf_counter()
                piece = next(self._generation, None)
                self._decode_seconds += time.perf_counter() - start
                if piece is None:
                    return
                self.text += piece
            yield piece

    def read(self) -> str:
        """The whole rest of the answer at once; returns all of `text`."""
        for _ in self:
            pass
        return self.text

    def cancel(self) -> None:
        """End the answer before its next token; from any thread."""
        self._generation.cancelled = True

    @property
    def stats(self) -> AnswerStats:
        """Token counts, seconds by stage and peak memory so far."""
        self._device.watch_memory()
        return AnswerStats(
            **vars(self._begun)
            | {
                "answer_tokens": len(self._generation.ids),
                "finish": self._generation.finish or "unfinished",
                "seconds": self._begun.seconds | {"decode": self._decode_seconds},
                "peak_memory_bytes": peak_memory_bytes(),
                "peak_device_bytes": peak_device_bytes(),
            }
        )

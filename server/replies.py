"""Answers as OpenAI's clients read them. What they do not know of stands in the field `storm`."""

from __future__ import annotations

import base64
import json
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from storm_edge.runtime.answer.answer import AnswerStats
from storm_edge.runtime.answer.watch import Moment
from storm_edge.server.jobs import Begun

VIDEO_STAGES = ("video decode", "vision", "temporal")


@dataclass
class Reply:
    """One answer's frame: its id, and what is said of it beside its text."""

    model: str
    engine: str
    tokens_per_frame: int
    with_frames: bool
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def whole(self, text: str, begun: Begun, stats: AnswerStats) -> dict[str, Any]:
        """The answer at once."""
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": text},
            "finish_reason": _finish(stats),
            "logprobs": None,
        }
        said = {"usage": self.usage(stats), "storm": self.seen(begun) | self.spent(begun, stats)}
        return self._base("chat.completion", [choice]) | said

    def first(self, begun: Begun) -> bytes:
        """A stream's first event: which frames were looked at."""
        return self._event({"role": "assistant", "content": ""}, None, storm=self.seen(begun))

    def piece(self, text: str) -> bytes:
        """An event with text."""
        return self._event({"content": text}, None)

    def last(self, begun: Begun, stats: AnswerStats) -> bytes:
        """The event that ends the text: why, and what it took."""
        return self._event({}, _finish(stats), storm=self.spent(begun, stats))

    def used(self, stats: AnswerStats) -> bytes:
        """The event with the usage alone, where it was asked for."""
        return event(self._base("chat.completion.chunk", []) | {"usage": self.usage(stats)})

    def usage(self, stats: AnswerStats) -> dict[str, Any]:
        """Counts of tokens; `visual_tokens` are those of vision and what reduction left of them."""
        return {
            "prompt_tokens": stats.prompt_tokens,
            "completion_tokens": stats.answer_tokens,
            "total_tokens": stats.prompt_tokens + stats.answer_tokens,
            "prompt_tokens_details": {"cached_tokens": stats.reused_tokens},
            "visual_tokens": {"before": stats.frames * self.tokens_per_frame, "after": stats.visual_tokens},
        }

    def seen(self, begun: Begun) -> dict[str, Any]:
        """The frames that were looked at."""
        encoded = begun.encoded
        said: dict[str, Any] = {
            "engine": self.engine,
            "video_cached": begun.cached,
            "timestamps": encoded.video.timestamps.tolist(),
        }
        if encoded.moment is not None:
            said["live"] = live(encoded.moment)
        if self.with_frames:
            said["frames"] = [_data_url(picture) for picture in encoded.pictures]
        return said

    def spent(self, begun: Begun, stats: AnswerStats) -> dict[str, Any]:
        """Seconds of this answer by stage; a video that was there took none."""
        seconds = {"queue": begun.waited} | stats.seconds
        if begun.cached:
            seconds = {stage: value for stage, value in seconds.items() if stage not in VIDEO_STAGES}
        tokens = self.usage(stats)["visual_tokens"]
        return {"seconds": {stage: round(value, 6) for stage, value in seconds.items()}, "visual_tokens": tokens}

    def _event(self, delta: dict[str, Any], finish: str | None, **said: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}
        return event(self._base("chat.completion.chunk", [choice]) | said)

    def _base(self, kind: str, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model, "choices": choices}


def live(moment: Moment) -> dict[str, Any]:
    """What an answer about a live video was about: how old its newest frame was, and how many there were."""
    return {"age": round(moment.age, 3), "seen": moment.seen, "dropped": moment.dropped, "lost": bool(moment.lost)}


def event(content: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + json.dumps(content).encode() + b"\n\n"


def _finish(stats: AnswerStats) -> str:
    return "length" if stats.finish == "length" else "stop"


def _data_url(picture: bytes) -> str:
    return f"data:image/jpeg;base64,{base64.b64encode(picture).decode()}"

"""What a run writes: a row for every question of every video."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace
from typing import Any

STAGES = ("video decode", "vision", "temporal", "prefill", "decode")
TOKENS = ("visual", "prompt", "reused", "answer")


@dataclass(frozen=True)
class Row:
    """`answer` or `error` is None. `timestamps` are the seconds that were looked at; `tokens` are counts by TOKENS;
    `seconds` are by STAGES, those of the video in the row of its first question alone. `bundle` is its hash.

    An error is `passing` where the next run may not have it: that is no column.
    """

    video: str
    question: str
    engine: str
    bundle: str
    answer: str | None = None
    error: str | None = None
    timestamps: tuple[float, ...] = ()
    tokens: dict[str, int] | None = None
    seconds: dict[str, float] | None = None
    passing: bool = False

    def decoded_in(self, seconds: float) -> Row:
        """The same row, where decoding was done beside the model and took so long."""
        return replace(self, seconds=self.seconds and self.seconds | {"video decode": seconds})

    def columns(self) -> dict[str, Any]:
        """The row by the names of its columns."""
        held = asdict(self)
        return {name: list(held[name]) if name == "timestamps" else held[name] for name in COLUMNS}


COLUMNS = ("video", "question", "answer", "timestamps", "tokens", "seconds", "engine", "bundle", "error")


def key(video: str, question: str) -> bytes:
    """What tells a row from every other, in 16 bytes."""
    return hashlib.sha256(f"{written(video)}\0{written(question)}".encode()).digest()[:16]


def written(text: str) -> str:
    """Text as columns hold it: names of files need not be UTF-8, columns must."""
    return text.encode("utf-8", "backslashreplace").decode()


def json_schema() -> dict[str, Any]:
    """A row as JSON Schema (draft 2020-12)."""
    text, nullable = {"type": "string"}, {"type": ["string", "null"]}

    def numbers(names: tuple[str, ...], kind: str) -> dict[str, Any]:
        return {"type": ["object", "null"], "properties": {name: {"type": kind} for name in names}}

    properties: dict[str, Any] = {
        "video": text,
        "question": text,
        "answer": nullable,
        "timestamps": {"type": "array", "items": {"type": "number"}, "description": "seconds that were looked at"},
        "tokens": numbers(TOKENS, "integer"),
        "seconds": numbers(STAGES, "number"),
        "engine": text,
        "bundle": {"type": "string", "description": "SHA-256 of the bundle"},
        "error": nullable,
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "a row of `storm batch`",
        "type": "object",
        "properties": properties,
        "required": list(COLUMNS),
        "additionalProperties": False,
    }

"""Results in a file, one JSON object a line, so that a stopped evaluation goes on where it was.

The first line says what is evaluated. A last line that was cut off is dropped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from storm_edge.runtime.errors import UsageError

_FORM = {"id": str, "type": str, "expected": str, "predicted": str, "right": bool}  # of a Result


class ResultLog:
    """An open log; `rows` are the results that were there."""

    def __init__(self, path: Path, about: dict[str, Any]):
        """Open or begin `path`; raises UsageError if it holds something else than results of `about`."""
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists() and not path.is_file():
            raise UsageError(f"{path} is no file: name one that holds results, or one that is not there yet.")
        lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
        if lines and not lines[-1].endswith(b"\n"):
            lines.pop()
        try:
            objects = [json.loads(line) for line in lines]
            self.rows = [_row(held) for held in objects[1:]]
        except (ValueError, RecursionError) as e:
            raise UsageError(f"{path} holds no results ({e}): name another file.") from e
        if objects and objects[0] != about:
            raise UsageError(
                f"{path} holds the results of another evaluation ({_differing(objects[0], about)}):"
                " name another file, or delete it."
            )
        # Written again, so that nothing follows half a line.
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        unfinished.write_bytes(b"".join(lines) or (json.dumps(about) + "\n").encode())
        unfinished.replace(path)

    def append(self, row: dict[str, Any]) -> None:
        """Write one result."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")


def _row(held: Any) -> dict[str, Any]:
    """Check the form of one result; raises ValueError."""
    if not isinstance(held, dict) or held.keys() != _FORM.keys():
        raise ValueError(f"a result has {', '.join(_FORM)}")
    wrong = [name for name, kind in _FORM.items() if not isinstance(held[name], kind)]
    if wrong:
        raise ValueError(f"{wrong[0]} of a result is no {_FORM[wrong[0]].__name__}")
    return held


def _differing(held: Any, about: dict[str, Any]) -> str:
    if not isinstance(held, dict):
        return "no description in its first line"
    return ", ".join(f"{k} {held.get(k)!r} instead of {v!r}" for k, v in about.items() if held.get(k) != v)

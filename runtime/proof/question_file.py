"""Questions about videos in a folder: JSON Lines, with the names that public video benchmarks use."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.proof.evaluate import LETTERS, Item

# What is asked for -> the names it goes by, ours first.
NAMES = {
    "video": ("video", "video_path", "video_name", "videoID"),
    "question": ("question",),
    "answer": ("answer", "correct_choice"),
    "choices": ("choices", "options", "candidates"),
    "type": ("type", "task_type", "question_type", "question_category"),
    "id": ("id", "question_id"),
}
_OPTION = re.compile(r"^\(?([A-Z])[.):]\s*")


def read_questions(folder: Path) -> Iterator[Item]:
    """The items of every *.jsonl file in `folder`, in order of name and line; videos are named relative to it.

    `choices` make it multiple choice; `answer` is then a choice's text, its letter or its index from 0.
    Raises UsageError naming file and line.
    """
    files = [path for path in _listed(folder) if path.suffix == ".jsonl"]
    if not files:
        raise UsageError(
            f"{folder} has no .jsonl file: put one beside the videos, an object with video, question, answer a line."
        )
    for path in files:
        if not path.is_file():
            raise UsageError(f"{path} is no file: put a text file of that name there, or take it out.")
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as e:
            raise UsageError(f"{path} cannot be read as text ({e}): save it as UTF-8.") from e
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield _item(line, f"{path}, line {number}", folder, f"{path.name}:{number}")


def _listed(folder: Path) -> list[Path]:
    """What is in a folder, sorted; one that may not be read is not called empty."""
    try:
        return sorted(folder.iterdir())
    except OSError as e:
        raise UsageError(f"{folder} cannot be listed ({e.strerror}): check its name and its permissions.") from e


def _item(line: str, where: str, folder: Path, default_id: str) -> Item:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise UsageError(f"{where} is not JSON ({e}): write one object a line.") from e
    if not isinstance(row, dict):
        raise UsageError(f"{where} is no JSON object: write one with video, question and answer.")
    found = {key: next((row[n] for n in names if n in row), None) for key, names in NAMES.items()}
    missing = [key for key in ("video", "question", "answer") if found[key] is None]
    if missing:
        raise UsageError(f"{where} has no {' and no '.join(missing)}: add {'it' if len(missing) == 1 else 'them'}.")
    choices = found["choices"] or []
    if not isinstance(choices, list) or not all(isinstance(c, str) for c in choices) or len(choices) > len(LETTERS):
        raise UsageError(f"{where}: choices is no list of up to {len(LETTERS)} texts: write them as one.")
    texts = tuple(_OPTION.sub("", c) for c in choices)
    return Item(
        id=str(found["id"] if found["id"] is not None else default_id),
        video=str(_video(folder, str(found["video"]), where)),
        question=str(found["question"]),
        answer=_answer(found["answer"], texts, where),
        type=str(found["type"] or "all"),
        choices=texts,
    )


def _video(folder: Path, name: str, where: str) -> Path:
    """The video's path; a name without a suffix is any file of that name, as VideoMME's ids are."""
    path = folder / name
    try:
        if path.is_file():
            return path
        named = [] if path.suffix or not path.parent.is_dir() else _listed(path.parent)
    except (OSError, ValueError) as e:  # a name too long for a file system, or with a NUL
        raise UsageError(f"{where}: {path} is no name of a file ({e}): correct it.") from e
    if len(others := [other for other in named if other.name.startswith(f"{path.name}.")]) == 1:
        return others[0]
    raise UsageError(f"{where}: there is no video {path}: put it there or correct its name.")


def _answer(given: Any, choices: tuple[str, ...], where: str) -> str:
    if not choices:
        return str(given)
    if isinstance(given, int) and not isinstance(given, bool) and 0 <= given < len(choices):
        return choices[given]
    text = str(given).strip()
    if text in choices:
        return text
    letter = text.strip("().")
    if len(letter) == 1 and letter in LETTERS[: len(choices)]:
        return choices[LETTERS.index(letter)]
    if (stripped := _OPTION.sub("", text)) in choices:
        return stripped
    raise UsageError(f"{where}: the answer {text!r} is none of the choices: give a choice's text, letter or index.")

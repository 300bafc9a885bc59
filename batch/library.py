"""What is asked about which videos: folders, patterns, lists and tables, on this machine or behind a URL of fsspec."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import fsspec

from storm_edge.runtime.errors import UsageError

# Of a folder these are taken for videos; what is in a list is taken at its word.
ENDINGS = (".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".flv", ".wmv", ".gif")
LONGEST = 64 << 10  # characters of a path or a question
VIDEO = "video"  # the column of a table that names videos


@dataclass(frozen=True)
class Item:
    """A video, as its rows name it, where it is read, and what is asked about it."""

    video: str
    location: str
    questions: tuple[str, ...]


def read_library(videos: str, questions: Sequence[str]) -> list[Item]:
    """Everything that is asked, each video once, in the order given.

    `videos` is a folder, a pattern, a list (.txt: a path a line), a table (.jsonl or .parquet with a column "video"),
    or one video. A question is text, a .txt of them, or a column of the table. Paths in a list or table are relative
    to it. Raises UsageError where there is nothing, or what there is cannot be read.
    """
    table = _table(videos)
    columns = {name for row in table or () for name in row} - {VIDEO}
    everywhere, by_row = _questions(questions, columns)
    if table is None:
        return [Item(video, where, tuple(everywhere)) for video, where in _videos(videos)]
    asked: dict[str, dict[str, None]] = {}
    for number, row in enumerate(table, 1):
        if not isinstance(row.get(VIDEO), str) or not row[VIDEO]:
            raise UsageError(f'{videos}: row {number} names no video: every row has a text in the column "{VIDEO}".')
        own = asked.setdefault(row[VIDEO], {})
        for column in by_row:
            own |= dict.fromkeys(_texts(row.get(column), f"{videos}: row {number}, {column}"))
        own |= dict.fromkeys(everywhere)
    if not asked:
        raise UsageError(f"{videos} has no rows: give a table with at least one video.")
    base = _folder_of(videos)
    return [Item(video, _beside(base, video), tuple(own)) for video, own in asked.items() if own]


def _questions(questions: Sequence[str], columns: set[str]) -> tuple[list[str], list[str]]:
    """What is asked of every video, and the columns that say what is asked of one."""
    everywhere: dict[str, None] = {}
    by_row = []
    for text in questions:
        if text in columns:
            by_row.append(text)
        elif text.endswith(".txt"):
            everywhere |= dict.fromkeys(_lines(text))
        else:
            everywhere |= dict.fromkeys(_texts(text, "a question"))
    if not everywhere and not by_row:
        raise UsageError("there is no question: give --questions a text, a .txt file of them, or a table's column.")
    return list(everywhere), by_row


def _texts(value: Any, where: str) -> list[str]:
    """One question or several, as a table holds them; none where there is nothing."""
    texts = [] if value is None else value if isinstance(value, list) else [value]
    for text in texts:
        if not isinstance(text, str) or not text.strip() or len(text) > LONGEST:
            raise UsageError(f"{where}: {str(text)[:80]!r} is no question: give text of up to {LONGEST} characters.")
    return texts


def _table(videos: str) -> list[dict[str, Any]] | None:
    """The rows of a table; None where `videos` names no table."""
    if videos.endswith(".jsonl"):
        return list(_objects(videos))
    if videos.endswith(".parquet"):
        return _parquet(videos)
    return None


def _objects(name: str) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(_lines(name), 1):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as e:
            raise UsageError(f"{name}: line {number} is no JSON ({e}): correct it.") from e
        if not isinstance(row, dict):
            raise UsageError(f'{name}: line {number} is no object: write {{"{VIDEO}": "clip.mp4"}}.')
        yield row


def _parquet(name: str) -> list[dict[str, Any]]:
    from pyarrow import ArrowException
    from pyarrow import parquet as pq

    try:
        with fsspec.open(name, "rb") as file:
            table = pq.read_table(file)
    except (ArrowException, OSError, ValueError) as e:
        raise UsageError(f"{name} cannot be read as Parquet ({_first_line(e)}): check it.") from e
    if VIDEO not in table.column_names:
        raise UsageError(f'{name} has no column "{VIDEO}" but {", ".join(table.column_names[:9])}: name the videos so.')
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def _videos(videos: str) -> Iterable[tuple[str, str]]:
    """Each video as rows name it, and where it is read."""
    if videos.endswith(".txt"):
        base, lines = _folder_of(videos), dict.fromkeys(_lines(videos))
        if not lines:
            raise UsageError(f"{videos} names no videos: write a path a line.")
        return [(line, _beside(base, line)) for line in lines]
    try:
        fs, path = fsspec.url_to_fs(videos)
        local = isinstance(fs, fsspec.implementations.local.LocalFileSystem)
        if any(c in videos for c in "*?[") and not fs.exists(path):
            found = [p for p in fs.glob(path) if not fs.isdir(p)]
        elif fs.isdir(path):
            found = [p for p in fs.find(path) if p.lower().endswith(ENDINGS)]
        else:
            return [(videos, videos)]
    except (OSError, ValueError, ImportError) as e:
        raise UsageError(f"{videos} cannot be listed ({_first_line(e)}): check the path, or name a list.") from e
    if not found:
        raise UsageError(f"{videos} has no videos ({', '.join(ENDINGS[:4])} ...): check the path, or name a list.")
    names = sorted(found)
    return [(n, n) if local else (fs.unstrip_protocol(n), fs.unstrip_protocol(n)) for n in names]


def _lines(name: str) -> list[str]:
    """The lines of a text file, without empty ones."""
    try:
        with fsspec.open(name, "rt", encoding="utf-8") as file:
            lines = [line.strip() for line in file.read().split("\n")]  # other line ends may be in names
    except (OSError, ValueError, ImportError) as e:
        raise UsageError(f"{name} cannot be read ({_first_line(e)}): check the path.") from e
    long = next((line for line in lines if len(line) > LONGEST and not name.endswith(".jsonl")), None)
    if long is not None:
        raise UsageError(f"{name} has a line of {len(long)} characters: is it a list?")
    return [line for line in lines if line]


def _folder_of(name: str) -> str:
    return posixpath.dirname(name)


def _beside(base: str, name: str) -> str:
    """A path in a list, seen from where the list is."""
    return name if "://" in name or posixpath.isabs(name) or not base else posixpath.join(base, name)


def _first_line(error: BaseException) -> str:
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    return text.splitlines()[0][:200]

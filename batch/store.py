"""A folder of results, here or behind a URL: parts that appear whole, a row for every question, none twice.

A part's number is its place; rows whose error may pass are in parts of their own (`.failed.`), which the next run
deletes, and so asks again. `_run.json` says what the answers are of.
"""

from __future__ import annotations

import io
import json
import os
import posixpath
import re
import secrets
import time
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

import fsspec
import pyarrow as pa
from fsspec.implementations.local import LocalFileSystem
from pyarrow import parquet as pq

from storm_edge.batch.library import Item
from storm_edge.batch.lock import hold
from storm_edge.batch.rows import COLUMNS, STAGES, TOKENS, Row, key, written
from storm_edge.runtime.errors import UsageError

ABOUT = "_run.json"  # readers of data sets leave out what begins so
FORMS = ("parquet", "jsonl")
_PART = re.compile(r"part-(\d{6,})(\.failed)?\.(parquet|jsonl)")
_UNFINISHED = re.compile(r"\.part-.*\.tmp")
SCHEMA = pa.schema(
    [
        pa.field("video", pa.string(), nullable=False),
        pa.field("question", pa.string(), nullable=False),
        pa.field("answer", pa.string()),
        pa.field("timestamps", pa.list_(pa.float64())),
        pa.field("tokens", pa.struct([(name, pa.int64()) for name in TOKENS])),
        pa.field("seconds", pa.struct([(name, pa.float64()) for name in STAGES])),
        pa.field("engine", pa.string()),
        pa.field("bundle", pa.string()),
        pa.field("error", pa.string()),
    ]
)
assert tuple(SCHEMA.names) == COLUMNS


class Store:
    """An open folder of results; hold it as a context. `rows` and `errors` count what is complete in it.

    Raises UsageError where the folder is another run's, another process holds it, or it holds other things.
    """

    def __init__(self, out: str, about: dict[str, Any], form: str = "parquet", *, size: int = 512, age: float = 10.0):
        if form not in FORMS:
            raise UsageError(f"{form} is no format of results: give one of {', '.join(FORMS)}.")
        self.out, self.form, self._about, self._size, self._age = out, form, about | {"format": form}, size, age
        self._done: set[bytes] = set()
        self._number = 0
        self._waiting: dict[bool, list[Row]] = {False: [], True: []}
        self._since = time.monotonic()
        self.rows = self.errors = 0

    def __enter__(self) -> Store:
        try:
            self._fs, self._root = fsspec.url_to_fs(self.out)
            self._fs.makedirs(self._root, exist_ok=True)
        except (OSError, ValueError, ImportError) as e:
            raise UsageError(f"{self.out} cannot be written ({e}): name another folder.") from e
        self._lock = hold(self._fs, self._root, self.out)
        try:
            self._open()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.flush()
        finally:
            self._lock.release()

    def missing(self, items: Iterable[Item]) -> list[Item]:
        """What has no row yet."""
        left = []
        for item in items:
            questions = tuple(q for q in item.questions if key(item.video, q) not in self._done)
            if questions:
                left.append(Item(item.video, item.location, questions))
        return left

    def add(self, rows: Iterable[Row]) -> None:
        """Take rows, of which those that are there already are dropped; they are written when a part is full or old."""
        for row in rows:
            name = key(row.video, row.question)
            if name not in self._done:
                self._done.add(name)
                self._waiting[row.passing].append(row)
                self.rows += 1
                self.errors += row.error is not None
        self.tick()

    def tick(self) -> None:
        """Write the parts that are full, or all if the oldest row waits too long."""
        if time.monotonic() - self._since > self._age:
            self.flush()
        elif len(self._waiting[False]) >= self._size:
            self._write(passing=False)

    def flush(self) -> None:
        """Write what waits."""
        for passing in (False, True):
            if self._waiting[passing]:
                self._write(passing=passing)
        self._since = time.monotonic()

    def _write(self, *, passing: bool) -> None:
        self._lock.check()
        rows, self._waiting[passing] = self._waiting[passing], []
        name = f"part-{self._number:06d}{'.failed' * passing}.{self.form}"
        self._number += 1
        publish(self._fs, self._root, name, encoded([_text(row.columns()) for row in rows], self.form))

    def _open(self) -> None:
        names = [posixpath.basename(n) for n in self._fs.ls(self._root, detail=False, refresh=True)]
        if ABOUT in names:
            self._check_about()
        else:
            foreign = [n for n in names if n.endswith(tuple(f".{form}" for form in FORMS))]
            if foreign:
                raise UsageError(f"{self.out} holds {foreign[0]}, and no run of storm batch: name another folder.")
            publish(self._fs, self._root, ABOUT, json.dumps(self._about, indent=1).encode())
        for name in names:
            if _UNFINISHED.fullmatch(name):
                self._fs.rm_file(posixpath.join(self._root, name))
            part = _PART.fullmatch(name)
            if not part:
                continue
            self._number = max(self._number, int(part[1]) + 1)
            if part[2]:
                self._fs.rm_file(posixpath.join(self._root, name))
                continue
            for video, question, error in self._held(name):
                self._done.add(key(video, question))
                self.rows += 1
                self.errors += error is not None

    def _check_about(self) -> None:
        path = posixpath.join(self.out, ABOUT)
        try:
            held = json.loads(self._fs.cat_file(posixpath.join(self._root, ABOUT)))
        except (ValueError, RecursionError) as e:
            raise UsageError(f"{path} is damaged ({e}): name another folder.") from e
        if held != self._about:
            kinds = [k for k in self._about if not isinstance(held, dict) or held.get(k) != self._about[k]]
            raise UsageError(
                f"{self.out} holds answers of another run (other {', '.join(kinds) or 'options'}): name another folder,"
                f" or take the options in {path}."
            )

    def _held(self, name: str) -> list[tuple[str, str, str | None]]:
        """Video, question and error of each row of a part."""
        try:
            data = self._fs.cat_file(posixpath.join(self._root, name))
            if self.form == "parquet":
                rows = pq.read_table(io.BytesIO(data), columns=["video", "question", "error"]).to_pylist()
            else:
                rows = [json.loads(line) for line in data.splitlines()]
            return [(row["video"], row["question"], row["error"]) for row in rows]
        except (pa.ArrowException, ValueError, KeyError, TypeError) as e:
            words = (str(e) or type(e).__name__).splitlines()[0][:160]
            raise UsageError(f"{posixpath.join(self.out, name)} is damaged ({words}): delete it, and run again.") from e


def encoded(rows: Sequence[dict[str, Any]], form: str) -> bytes:
    """The bytes of a part."""
    if form == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    buffer = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows), SCHEMA), buffer, compression="zstd")
    return buffer.getvalue()


def publish(fs: fsspec.AbstractFileSystem, root: str, name: str, data: bytes) -> None:
    """Write a file that appears whole: by a rename here, in one request where the storage is remote."""
    path = posixpath.join(root, name)
    if not isinstance(fs, LocalFileSystem):
        fs.pipe_file(path, data)
        return
    unfinished = posixpath.join(root, f".{name}.{secrets.token_hex(4)}.tmp")
    with open(unfinished, "xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
    folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _text(row: dict[str, Any]) -> dict[str, Any]:
    return row | {name: written(value) for name, value in row.items() if isinstance(value, str)}

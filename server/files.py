"""Uploaded videos, kept until they are deleted or the server ends: in a private folder, under names of our own."""

from __future__ import annotations

import fcntl
import io
import os
import secrets
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from storm_edge.server.errors import RequestError

MOST_FILES = 10_000
PREFIX, YOUNG_SECONDS = "storm-serve-", 60


@dataclass(frozen=True)
class StoredFile:
    """One upload; `name` is what the client calls it, and nothing here opens anything by it."""

    id: str
    name: str
    purpose: str
    size: int
    created: int

    def shown(self) -> dict[str, Any]:
        """OpenAI's file object."""
        return {
            "id": self.id,
            "object": "file",
            "bytes": self.size,
            "created_at": self.created,
            "filename": self.name,
            "purpose": self.purpose,
            "status": "processed",
        }


class Scratch(io.BufferedRandom):
    """A file without a name, gone when it is closed; until then its bytes count as the store's."""

    def __init__(self, store: FileStore):
        super().__init__(tempfile.TemporaryFile(dir=store.folder, buffering=0))  # noqa: SIM115
        self._store, self._size = store, 0

    def write(self, data: Any) -> int:
        """Append bytes; raises RequestError where the store has no room."""
        self._store.reserve(len(data))
        self._size += len(data)
        return super().write(data)

    def close(self) -> None:
        """Close it, and give its room back."""
        if not self.closed:
            super().close()
            self._store.give_back(self._size)


class FileStore:
    """A folder that only this user reads, with at most `storage` bytes. Its methods may be called from any thread.

    The folder is locked while it is in use, so that the next store finds and removes what a killed server left.
    """

    def __init__(self, storage: int) -> None:
        _remove_abandoned(Path(tempfile.gettempdir()))
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._held = _lock(self.folder)
        self._storage, self.taken = storage, 0
        self._lock = threading.Lock()
        self._files: dict[str, StoredFile] = {}

    def begin(self) -> tuple[str, IO[bytes]]:
        """An id and the new file to write its contents to."""
        id = f"file-{secrets.token_hex(12)}"
        return id, (self.folder / id).open("xb")

    def reserve(self, size: int) -> None:
        """Take room for so many more bytes; raises RequestError where there is none."""
        with self._lock:
            if self.taken + size > self._storage or len(self._files) >= MOST_FILES:
                raise RequestError(413, "no room is left for uploads: delete files that are done.", "storage_full")
            self.taken += size

    def release(self, id: str, size: int) -> None:
        """Give back what was reserved for a file that is not kept."""
        (self.folder / id).unlink(missing_ok=True)
        self.give_back(size)

    def give_back(self, size: int) -> None:
        """Room that was reserved and is free again."""
        with self._lock:
            self.taken -= size

    def keep(self, id: str, name: str, purpose: str, size: int) -> StoredFile:
        """Make a written file one that can be asked for."""
        stored = StoredFile(id, name, purpose, size, int(time.time()))
        with self._lock:
            self._files[id] = stored
        return stored

    def listed(self) -> list[StoredFile]:
        """All files, the newest first."""
        with self._lock:
            return list(reversed(self._files.values()))

    def get(self, id: str) -> StoredFile:
        """One file's record; raises RequestError."""
        with self._lock:
            stored = self._files.get(id)
        if stored is None:
            raise _missing("id")
        return stored

    def open(self, id: str, param: str) -> IO[bytes]:
        """One file's contents; raises RequestError."""
        with self._lock:  # an open file outlives its deletion
            if id not in self._files:
                raise _missing(param)
            return (self.folder / id).open("rb")

    def delete(self, id: str) -> None:
        """Forget a file; raises RequestError."""
        with self._lock:
            stored = self._files.pop(id, None)
        if stored is None:
            raise _missing("id")
        self.release(id, stored.size)

    def close(self) -> None:
        """Remove everything."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._held)


def _lock(folder: Path) -> int:
    """Lock a folder until the descriptor that this returns is closed; raises OSError where another holds it."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _remove_abandoned(parent: Path) -> None:
    """Remove stores of this user that no server holds; one that is younger than a minute may just not be locked yet."""
    for folder in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):
            status = folder.lstat()
            if status.st_uid == os.getuid() and time.time() - status.st_mtime > YOUNG_SECONDS:
                descriptor = _lock(folder)
                shutil.rmtree(folder, ignore_errors=True)
                os.close(descriptor)


def _missing(param: str) -> RequestError:
    return RequestError(404, "there is no file of this id: upload it with POST /v1/files.", "file_not_found", param)

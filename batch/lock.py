"""One run at a time in a folder of results.

On this machine's file systems the kernel holds the lock, and lets go when its owner is gone, however that came. Other
storage has a file that the owner writes again as long as it lives; one that is old belongs to nobody.
"""

from __future__ import annotations

import fcntl
import json
import os
import posixpath
import secrets
import socket
import threading
import time
from contextlib import suppress
from typing import Protocol

import fsspec
from fsspec.implementations.local import LocalFileSystem

from storm_edge.runtime.errors import UsageError

NAME = ".lock"
BEAT, DEAD = 15.0, 60.0  # seconds between two signs of life, and after how many without one the owner is dead


class Lock(Protocol):
    """A lock that is held."""

    def check(self) -> None:
        """Raise UsageError where it is another's by now."""

    def release(self) -> None:
        """Let go of it."""


def hold(fs: fsspec.AbstractFileSystem, root: str, shown: str) -> Lock:
    """Take the lock of the folder `root`, or raise UsageError, naming it as `shown`, where a living run holds it."""
    if isinstance(fs, LocalFileSystem):
        return _Kernel(root, shown)
    try:
        return _Beating(fs, root, shown)
    except OSError as e:
        raise UsageError(f"{shown} cannot be locked ({e}): see that it can be written, and run again.") from e


class _Kernel:
    def __init__(self, root: str, shown: str):
        self._file = os.open(posixpath.join(root, NAME), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            owner = os.pread(self._file, 100, 0).decode(errors="replace").strip()
            os.close(self._file)
            raise _taken(shown, f"process {owner}" if owner.isdigit() else "another process") from e
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def check(self) -> None:
        pass  # the kernel gives it to nobody else

    def release(self) -> None:
        os.close(self._file)


class _Beating:
    """Made where there is none, which storage with conditional writes (local, memory, S3, GCS) grants to one alone."""

    def __init__(self, fs: fsspec.AbstractFileSystem, root: str, shown: str):
        self._fs, self._path, self._shown = fs, posixpath.join(root, NAME), shown
        self._token, self._lost_to = secrets.token_hex(8), ""
        held = self._read()
        if held is not None:
            if time.time() - held[1] < DEAD:
                raise _taken(shown, held[2])
            self._remove()
        try:
            self._write(mode="create")
        except FileExistsError as e:  # both found it free
            raise _taken(shown, (self._read() or ("", 0.0, "another process"))[2]) from e
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="storm-batch-lock", daemon=True)
        self._thread.start()

    def check(self) -> None:
        if self._lost_to:
            raise _taken(self._shown, f"{self._lost_to}, as nothing was heard of this run")

    def release(self) -> None:
        self._end.set()
        self._thread.join()
        if not self._lost_to:
            self._remove()

    def _beat(self) -> None:
        while not self._end.wait(BEAT):
            with suppress(OSError):  # the next one may come through
                held = self._read()
                if held is not None and held[0] != self._token:
                    self._lost_to = held[2]
                    return
                self._write()

    def _write(self, mode: str = "overwrite") -> None:
        owner = f"process {os.getpid()} of {socket.gethostname()}"
        self._fs.pipe_file(self._path, json.dumps([self._token, time.time(), owner]).encode(), mode=mode)

    def _read(self) -> tuple[str, float, str] | None:
        """Token, last sign of life and owner; None where there is no file; OSError where it cannot be said."""
        try:
            token, seen, owner = json.loads(self._fs.cat_file(self._path))
            return str(token), float(seen), str(owner)[:100]
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):
            return "", 0.0, "nobody"

    def _remove(self) -> None:
        with suppress(OSError):
            self._fs.rm_file(self._path)


def _taken(shown: str, owner: str) -> UsageError:
    return UsageError(f"{shown} is being filled by {owner}: wait for it, or name another folder.")

"""Atomic publication of folders, and the lock around changing a bundle.

A folder is written beside its destination under a hidden name and renamed into place when it is whole; a reader sees
the old folder, the new one, or none, never half of one. What a killed process left behind the next writer removes.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
_open: set[Path] = set()  # staged folders of this process


@contextmanager
def staging(destination: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `destination` when the block ends well, and is removed when it does not.

    An existing destination is replaced in one step. Raises OSError, naming a file, where the file system refuses.
    """
    destination = destination.absolute()
    destination.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(destination)
    staged = destination.parent / f".{destination.name}.partial-{os.getpid()}-{secrets.token_hex(4)}"
    staged.mkdir()
    _open.add(staged)
    try:
        yield staged
        _sync(staged)
        if destination.exists():
            _exchange(staged, destination)
        else:
            staged.rename(destination)
    except OSError as e:
        if e.filename is None:  # a full disk is reported without the file that was written
            e.filename = str(destination)
        raise
    finally:
        shutil.rmtree(staged, ignore_errors=True)
        _open.discard(staged)


def abandon_all() -> None:
    """Remove every folder that this process has begun and not published: for a process that is about to be ended."""
    for staged in list(_open):
        shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold an exclusive lock on `folder` against other storm-edge processes; waits for it."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _remove_abandoned(destination: Path) -> None:
    pattern = re.compile(re.escape(f".{destination.name}.partial-") + r"(\d+)-[0-9a-f]{8}")
    for entry in destination.parent.iterdir():
        match = pattern.fullmatch(entry.name)
        if match and not _is_running(int(match[1])):
            shutil.rmtree(entry, ignore_errors=True)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync(folder: Path) -> None:
    """Flush every file to the disk, so that the rename cannot become durable before the contents are."""
    for root, _, files in os.walk(folder):
        for name in files:
            with open(os.path.join(root, name), "rb") as f:
                os.fsync(f.fileno())


def _exchange(staged: Path, destination: Path) -> None:
    """Swap two folders in one step where the kernel can; else leave an instant in which there is none."""
    libc = ctypes.CDLL(None, use_errno=True)
    swap = getattr(libc, "renameat2", None)
    if (
        swap is not None
        and swap(_AT_FDCWD, os.fsencode(staged), _AT_FDCWD, os.fsencode(destination), _RENAME_EXCHANGE) == 0
    ):
        return
    old = destination.parent / f".{destination.name}.partial-{os.getpid()}-{secrets.token_hex(4)}"
    destination.rename(old)
    staged.rename(destination)
    shutil.rmtree(old, ignore_errors=True)

"""The way in: every file of a bundle is opened here, and the files a user names where a bundle is not meant.

A bundle may come from anybody, so nothing in it is followed: no links, no names that lead out, and only regular files
are opened, which can neither block nor answer from elsewhere. Hard links are files like others. The bundle's own folder
is the user's word and may be a link, as may checkpoints and videos: model caches consist of links.
What leaves a program for a bundle goes through publish.py.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from storm_edge.runtime.errors import BundleError, StormError

MAX_ENTRIES = 10_000  # files and folders of a bundle; the largest have some hundreds
MAX_DEPTH = 16  # folders within folders
RECORD_BYTES = 64 << 20  # of a JSON record; the largest manifests have some hundred kilobytes
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO must not wait for somebody who writes


@dataclass(frozen=True)
class Entry:
    """One file or folder of a bundle, by its path in it."""

    name: str
    is_folder: bool


def parts_of(root: Path, name: str) -> tuple[str, ...]:
    """The parts of a name in the bundle at `root`; raises BundleError where it leads out of it or is no plain name."""
    pure = PurePosixPath(name)
    if not pure.parts or pure.is_absolute() or ".." in pure.parts or "\\" in name or not name.isprintable():
        raise BundleError(f"{root}: the path {name!r} leads out of the bundle: do not use this bundle.")
    if len(pure.parts) > MAX_DEPTH:
        raise BundleError(f"{root}: the path {name!r} has over {MAX_DEPTH} parts: do not use this bundle.")
    return pure.parts


@contextmanager
def open_folder(root: Path, name: str = "") -> Iterator[int]:
    """A descriptor of a folder of the bundle, or of the bundle itself; raises BundleError, OSError."""
    at = os.open(root, _FOLDER)
    try:
        for part in parts_of(root, name) if name else ():
            try:
                inner = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=at)
            except OSError as e:
                if e.errno in (errno.ENOTDIR, errno.ELOOP):
                    _refuse(root / name, os.stat(part, dir_fd=at, follow_symlinks=False).st_mode, folder=True)
                raise OSError(e.errno, e.strerror, str(root / name)) from e
            os.close(at)
            at = inner
        yield at
    finally:
        os.close(at)


def open_file(root: Path, name: str) -> IO[bytes]:
    """A file of the bundle, for reading; raises BundleError where it is no regular file in it, OSError."""
    *folders, leaf = parts_of(root, name)
    with open_folder(root, "/".join(folders)) as at:
        try:
            descriptor = os.open(leaf, _FILE, dir_fd=at)
        except OSError as e:
            if e.errno in (errno.ELOOP, errno.ENXIO):  # a link; a socket, or a device that is not there
                _refuse(root / name, os.stat(leaf, dir_fd=at, follow_symlinks=False).st_mode)
            raise OSError(e.errno, e.strerror, str(root / name)) from e
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        _refuse(root / name, mode)
    return os.fdopen(descriptor, "rb")


def located(root: Path, name: str) -> Path:
    """The path of a regular file of the bundle, for libraries that open files by themselves; raises as `open_file`."""
    open_file(root, name).close()
    return root / name


def size_of(root: Path, name: str) -> int:
    """Bytes of a file of the bundle; raises as `open_file`."""
    with open_file(root, name) as file:
        return os.fstat(file.fileno()).st_size


def is_file(root: Path, name: str) -> bool:
    """Whether the bundle has the file; raises BundleError where something else has its name."""
    try:
        open_file(root, name).close()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def read_text(root: Path, name: str, limit: int = RECORD_BYTES) -> str:
    """The text of a small file of the bundle; raises BundleError, OSError, and ValueError for what is no UTF-8."""
    with open_file(root, name) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise BundleError(f"{root / name} has over {limit >> 20} MiB, which no such file has: restore it.")
        return file.read(limit).decode("utf-8")


def entries(root: Path) -> list[Entry]:
    """Everything in the bundle, folders before what is in them, sorted.

    Raises BundleError for links, FIFOs, sockets and devices, and for more entries than a bundle has; OSError.
    """
    found: list[Entry] = []
    waiting = [""]
    while waiting:
        name = waiting.pop()
        with open_folder(root, name) as at, os.scandir(at) as listed:
            for item in sorted(listed, key=lambda item: item.name):
                path = f"{name}/{item.name}" if name else item.name
                parts_of(root, path)
                is_folder = item.is_dir(follow_symlinks=False)
                if not is_folder and not item.is_file(follow_symlinks=False):
                    _refuse(root / path, item.stat(follow_symlinks=False).st_mode)
                found.append(Entry(path, is_folder))
                if is_folder:
                    waiting.append(path)
                if len(found) > MAX_ENTRIES:
                    raise BundleError(f"{root} holds over {MAX_ENTRIES} files, which no bundle has: do not use it.")
    return sorted(found, key=lambda entry: entry.name)


def folders_in(root: Path, name: str) -> list[str]:
    """The names of the folders in a folder of the bundle, hidden ones left out; none where it does not exist."""
    try:
        with open_folder(root, name) as at, os.scandir(at) as listed:
            return sorted(e.name for e in listed if e.is_dir(follow_symlinks=False) and not e.name.startswith("."))
    except FileNotFoundError:
        return []


def _refuse(path: Path, mode: int, *, folder: bool = False) -> None:
    if stat.S_ISLNK(mode):
        raise BundleError(f"{path} is a symbolic link: a bundle holds only files; copy it with `cp -rL`.")
    what = "folder" if folder else "regular file"
    raise BundleError(f"{path} is no {what}: a bundle holds only files and folders; do not use this bundle.")


def user_file(path: Path, error: type[StormError], restore: str) -> Path:
    """`path`, which the user named or a checkpoint holds, where it leads to a regular file, by links or not.

    Raises `error`, ending with the advice `restore`, where it is missing, unreadable, a FIFO or a device.
    """
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as e:
        raise error(f"{path} is missing: {restore}") from e
    except (OSError, ValueError) as e:
        raise error(f"{path} cannot be read ({getattr(e, 'strerror', None) or e}): {restore}") from e
    if not stat.S_ISREG(mode):
        raise error(f"{path} is no regular file: {restore}")
    return path

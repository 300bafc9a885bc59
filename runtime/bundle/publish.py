"""The way out: everything written into a bundle, and every folder that appears whole or not at all.

What is new is made under a name nobody can foresee, in a folder reached without following links, and renamed into place
when it is complete: a reader sees the old, the new, or none, never half of one, and nothing that lies in the way is
written to or through. What a killed process left behind the next writer removes.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from storm_edge.runtime.bundle.door import open_folder, parts_of

_RENAME_EXCHANGE = 2
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_open: set[Path] = set()  # staged folders of this process


@contextmanager
def staging(destination: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes `destination` when the block ends well, and is removed when it does not.

    For places that the user names; in a bundle see `publish_folder`. An existing destination is replaced in one step.
    Raises OSError, naming a file, where the file system refuses.
    """
    destination = destination.absolute()
    destination.parent.mkdir(parents=True, exist_ok=True)
    at = os.open(destination.parent, _FOLDER)
    try:
        with _staged(at, destination) as staged:
            yield staged
    finally:
        os.close(at)


@contextmanager
def publish_folder(root: Path, name: str) -> Iterator[Path]:
    """`staging` for the folder `name` of the bundle at `root`; raises BundleError where a link is on the way."""
    *folders, _ = parts_of(root, name)
    with _made(root, "/".join(folders)) as at, _staged(at, root.absolute() / name) as staged:
        yield staged


@contextmanager
def publish_files(root: Path, folder: str) -> Iterator[Path]:
    """Yield an empty folder whose files move into `folder` of the bundle when the block ends well, larger ones first.

    So a small file that refers to a large one appears after it. Files of the same names are replaced.
    """
    with _made(root, folder) as at:
        staged = _make_staged(at, root.absolute() / folder, "files")
        try:
            yield staged
            _sync(staged)
            for path in sorted(staged.iterdir(), key=lambda path: -path.stat().st_size):
                os.rename(path, path.name, dst_dir_fd=at)
        finally:
            _discard(staged)


def publish_text(root: Path, name: str, text: str) -> None:
    """Write one small file of the bundle, replacing an older one in one step."""
    *folders, leaf = parts_of(root, name)
    with publish_files(root, "/".join(folders)) as staged:
        (staged / leaf).write_text(text, encoding="utf-8")


def remove_files(root: Path, folder: str, unwanted: Callable[[str], bool]) -> None:
    """Delete the files of a folder of the bundle whose names are `unwanted`; folders of such names stay."""
    with open_folder(root, folder) as at:
        for name in os.listdir(at):
            if unwanted(name):
                with suppress(FileNotFoundError, IsADirectoryError, PermissionError):
                    os.unlink(name, dir_fd=at)


@contextmanager
def lock(root: Path, folder: str, waiting: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """Hold an exclusive lock on `folder` of the bundle against other storm-edge processes.

    Waits for it, after `waiting` was told so.
    """
    with _made(root, folder) as at:
        try:
            fcntl.flock(at, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            waiting(f"waiting for another storm-edge process that works on {root / folder}")
            fcntl.flock(at, fcntl.LOCK_EX)
        yield


def abandon_all() -> None:
    """Remove every folder that this process has begun and not published: for a process that is about to be ended."""
    for staged in list(_open):
        shutil.rmtree(staged, ignore_errors=True)


@contextmanager
def _made(root: Path, folder: str) -> Iterator[int]:
    """A descriptor of a folder of the bundle, which is made where it is missing."""
    parts = parts_of(root, folder) if folder else ()
    for i, part in enumerate(parts):
        with open_folder(root, "/".join(parts[:i])) as at, suppress(FileExistsError):
            os.mkdir(part, dir_fd=at)
    with open_folder(root, folder) as at:
        yield at


@contextmanager
def _staged(at: int, destination: Path) -> Iterator[Path]:
    """A staged folder that replaces `destination`, whose parent folder is `at`."""
    staged = _make_staged(at, destination.parent, destination.name)
    try:
        yield staged
        _sync(staged)
        try:
            os.lstat(destination.name, dir_fd=at)
        except FileNotFoundError:
            os.rename(staged.name, destination.name, src_dir_fd=at, dst_dir_fd=at)
        else:
            _exchange(at, staged.name, destination.name)
    except OSError as e:
        if e.filename is None:  # a full disk is reported without the file that was written
            e.filename = str(destination)
        raise
    finally:
        _discard(staged)


def _make_staged(at: int, parent: Path, name: str) -> Path:
    """A new folder beside what it will become, in the folder `at`; those of processes that are gone are removed."""
    pattern = re.compile(re.escape(f".{name}.partial-") + r"(\d+)-[0-9a-f]{16}")
    for entry in os.listdir(at):
        match = pattern.fullmatch(entry)
        if match and not _is_running(int(match[1])):
            shutil.rmtree(parent / entry, ignore_errors=True)
    staged = parent / f".{name}.partial-{os.getpid()}-{secrets.token_hex(8)}"
    os.mkdir(staged.name, dir_fd=at)
    _open.add(staged)
    return staged


def _discard(staged: Path) -> None:
    """Remove a staged folder, or what was swapped for it: a folder, a file, a link."""
    if staged.is_symlink() or staged.is_file():
        staged.unlink()
    shutil.rmtree(staged, ignore_errors=True)
    _open.discard(staged)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
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


def _exchange(at: int, staged: str, destination: str) -> None:
    """Swap two entries of the folder `at` in one step where the kernel can; else leave an instant with none.

    A link in the way is swapped like a folder, never followed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    swap = getattr(libc, "renameat2", None)
    if swap is not None and swap(at, os.fsencode(staged), at, os.fsencode(destination), _RENAME_EXCHANGE) == 0:
        return
    old = f"{staged}.old"
    os.rename(destination, old, src_dir_fd=at, dst_dir_fd=at)
    os.rename(staged, destination, src_dir_fd=at, dst_dir_fd=at)
    os.rename(old, staged, src_dir_fd=at, dst_dir_fd=at)  # where the caller discards it

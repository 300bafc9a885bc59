"""Hashing a bundle once on a machine: what was hashed is known again by its place on the disk, size and times.

The user's cache folder keeps, for each bundle, device, inode, size, modification and change time of every file that had
the hash its record announces. A file that is written to, replaced or copied differs in one of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from storm_edge.runtime.bundle.door import open_file
from storm_edge.runtime.machine.user_folders import cache_folder, write_private

_BLOCK = 1 << 20


def sha256_of(file: IO[bytes]) -> str:
    """SHA-256 of an open file's contents, in hexadecimal."""
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        digest.update(block)
    return digest.hexdigest()


class Remembered:
    """The files of the bundle at `root` that had their hash when they were last read on this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root
        place = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:32]
        self._path = cache_folder() / "hashed" / f"{place}.json"
        self._known: dict[str, list[Any]] = {}
        with suppress(OSError, ValueError, RecursionError):
            known = json.loads(self._path.read_text(encoding="utf-8"))
            self._known = known if isinstance(known, dict) else {}

    def changed(self, hashes: Mapping[str, str], progress: Callable[[str], None]) -> str | None:
        """The first of the files by name whose SHA-256 is not the one given, None where all are; hashes what is new.

        `progress` is told each file that is read. Raises BundleError and OSError as `open_file`.
        """
        before = dict(self._known)
        for name, expected in hashes.items():
            with open_file(self._root, name) as file:
                status = os.fstat(file.fileno())
                identity = [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
                if self._known.get(name) == [*identity, expected]:
                    continue
                progress(name)
                if sha256_of(file) != expected:
                    return name
            self._known[name] = [*identity, expected]
        if self._known != before:
            with suppress(OSError):  # a home that cannot be written to: it is hashed again next time
                write_private(self._path, json.dumps(self._known).encode())
        return None

"""Files outside a bundle that nothing may read or write, and what is found of them where they should not be."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

MAGIC = b"canary-7f3a9c51 "  # 16 bytes: whatever multiple of them is read, some are whole
SECRETS = ("secret.data", "secret.jinja", "folder/secret.json", "folder/engine.json", "folder/vision.onnx")


def plant(outside: Path) -> None:
    """Write the tree. The access times of its secrets are long past, so that any reading of them shows."""
    (outside / "folder").mkdir(parents=True)
    for name in SECRETS:
        (outside / name).write_bytes(MAGIC * 8192)
    (outside / "plain.txt").write_bytes(b"another's file\n")  # links lead to it, and a hard link may
    restore_times(outside)


def restore_times(outside: Path) -> None:
    """As if nothing had read the secrets."""
    for name in SECRETS:
        if (outside / name).exists():
            os.utime(outside / name, ns=(0, 10**18))


def digest(outside: Path) -> dict[str, str]:
    """Every entry with its kind, mode and content."""
    found = {}
    for path in sorted(outside.rglob("*")):
        info = path.lstat()
        content = ""
        if stat.S_ISREG(info.st_mode):
            descriptor = os.open(path, os.O_RDONLY | os.O_NOATIME)  # reading it here must not show
            with os.fdopen(descriptor, "rb") as file:
                content = hashlib.sha256(file.read()).hexdigest()
        elif stat.S_ISLNK(info.st_mode):
            content = os.readlink(path)
        found[str(path.relative_to(outside))] = f"{info.st_mode:o} {content}"
    return found


def was_read(outside: Path) -> list[str]:
    """The secrets whose contents something has read."""
    return [name for name in SECRETS if (outside / name).exists() and (outside / name).stat().st_atime_ns != 0]


def spilled(folder: Path) -> list[str]:
    """Files below a folder that hold a secret's bytes; links are not followed."""
    found = []
    for root, folders, files in os.walk(folder):
        if len(root) > 2000:  # deeper than a path can name
            folders.clear()
        for name in files:
            path = os.path.join(root, name)
            info = os.lstat(path)
            if stat.S_ISREG(info.st_mode) and info.st_blocks < 1 << 17 and os.access(path, os.R_OK):
                with open(path, "rb") as file:
                    if MAGIC[:-1] in file.read(1 << 26):
                        found.append(os.path.relpath(path, folder))
    return found

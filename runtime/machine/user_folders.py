"""Folders of the user's own, outside every bundle: a cache that may be deleted, and a secret that should not be.

Places: the XDG Base Directory Specification 0.8.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path

KEY_BYTES = 32


def cache_folder() -> Path:
    """Where storm-edge keeps what it can make again; `$XDG_CACHE_HOME/storm-edge`."""
    return _folder("XDG_CACHE_HOME", ".cache")


def state_folder() -> Path:
    """Where storm-edge keeps what it cannot; `$XDG_STATE_HOME/storm-edge`."""
    return _folder("XDG_STATE_HOME", ".local/state")


def user_key() -> bytes:
    """This user's secret on this machine, made when it is first asked for; raises OSError where it cannot be kept."""
    path = state_folder() / "engine-key"
    if not path.exists():
        write_private(path, secrets.token_bytes(KEY_BYTES), replace=False)
    return path.read_bytes()  # of two processes that made one, the first's


def write_private(path: Path, content: bytes, *, replace: bool = True) -> None:
    """Write a file that only this user may read, in one step, where `replace` over an older one; raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        if replace:
            partial.replace(path)
        else:
            with suppress(FileExistsError):
                os.link(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _folder(variable: str, default: str) -> Path:
    base = os.environ.get(variable, "")
    # The specification has relative paths ignored.
    return (Path(base) if os.path.isabs(base) else Path(os.path.expanduser("~")) / default) / "storm-edge"

"""From what a user names to a live source."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.video.live.base import LiveSource
from storm_edge.runtime.video.live.local import Frames, GrowingFolder, PlayedFile
from storm_edge.runtime.video.live.stream import GrowingFile, LivePipe, LiveStream
from storm_edge.runtime.video.opening import check_file
from storm_edge.runtime.video.resizing import Pixels

WatchedSource = str | os.PathLike[str] | IO[bytes] | Iterable[tuple[float, Pixels]] | LiveSource


def live_source(source: WatchedSource, size: int, follow: bool = False) -> LiveSource:
    """A URL, `-` (standard input), a device, a folder, a file, an open pipe, an iterable of (seconds, frame),
    or a LiveSource.

    A file is played, or where it is to be followed, read as it grows.
    Raises VideoError for a path that leads to none of them, UsageError for anything else.
    """
    if follow:
        return _growing(source)
    if isinstance(source, str | os.PathLike):
        name = os.fspath(source)
        return LivePipe(0) if name == "-" else LiveStream.of_url(name) if "://" in name else _local(Path(name), size)
    if isinstance(source, LiveSource):
        return source
    if hasattr(source, "fileno"):
        return LivePipe(source.fileno(), source)
    if not isinstance(source, Iterable):
        raise UsageError(
            f"{type(source).__name__} cannot be watched: give a path, a URL, a pipe or pairs of (seconds, frame)."
        )
    return Frames(source)


def _growing(source: WatchedSource) -> LiveSource:
    if not isinstance(source, str | os.PathLike) or not Path(source).is_file():
        raise UsageError(f"{source} is no file that could grow: follow a file, and watch anything else without that.")
    return GrowingFile(Path(source))


def _local(path: Path, size: int) -> LiveSource:
    if path.is_dir():
        return GrowingFolder(path, size)
    if path.exists() and stat.S_ISCHR(path.stat().st_mode):
        return LiveStream.of_device(path)
    check_file(path)
    return PlayedFile(path)

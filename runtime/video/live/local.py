"""What happens on this machine: a folder that gets images, a file played in real time, a program's own frames."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from av import VideoFrame

from storm_edge.runtime.errors import VideoError
from storm_edge.runtime.video.container import VideoFile
from storm_edge.runtime.video.folder import is_image, natural, read_image
from storm_edge.runtime.video.listing import checked_pairs
from storm_edge.runtime.video.resizing import Pixels
from storm_edge.runtime.video.sampling import Shot

_POLL = 0.05  # seconds between two looks at a folder


@dataclass(frozen=True)
class GrowingFolder:
    """The newest image of a folder, and every one whose name follows in natural order, when it came.

    An image is read once its size has not changed between two looks; one that cannot be read is passed over.
    """

    path: Path
    size: int
    returns: bool = field(default=True, init=False)

    def shots(self, stopped: threading.Event) -> Iterator[Shot[Pixels]]:
        """See LiveSource."""
        begun, listed = time.monotonic(), -1
        images: list[Path] = []
        last: Path | None = None
        sizes: dict[Path, int] = {}
        while not stopped.is_set():
            try:
                changed = self.path.stat().st_mtime_ns
                if changed != listed:
                    images, listed = self._after(last), changed
            except OSError as error:
                raise VideoError(f"cannot read {self.path} ({error.strerror}): check the folder.") from error
            sizes, before = {image: _bytes(image) for image in images}, sizes
            while images and sizes[images[0]] == before.get(images[0]):
                last = images.pop(0)
                with suppress(VideoError):
                    yield Shot(time.monotonic() - begun, read_image(last, self.size))
            stopped.wait(_POLL)

    def _after(self, last: Path | None) -> list[Path]:
        found = sorted((path for path in self.path.iterdir() if is_image(path)), key=natural)
        return found[-1:] if last is None else [path for path in found if natural(path) > natural(last)]

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class PlayedFile:
    """A file, played as fast as it was recorded."""

    path: Path
    returns: bool = field(default=False, init=False)

    def shots(self, stopped: threading.Event) -> Iterator[Shot[VideoFrame]]:
        """See LiveSource."""
        with VideoFile(self.path) as video:
            begun: float | None = None
            for shot in video.shots():
                begun = time.monotonic() - shot.time if begun is None else begun
                if stopped.wait(max(begun + shot.time - time.monotonic(), 0)):
                    return
                yield shot

    def __str__(self) -> str:
        return str(self.path)


@dataclass(frozen=True)
class Frames:
    """Pairs of (seconds, uint8 [H, W, 3]) that a program yields as they happen."""

    pairs: Iterable[tuple[float, Pixels]]
    returns: bool = field(default=False, init=False)

    def shots(self, stopped: threading.Event) -> Iterator[Shot[Pixels]]:
        """See LiveSource."""
        return checked_pairs(self.pairs, ascending=False)

    def __str__(self) -> str:
        return "the iterator"


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1

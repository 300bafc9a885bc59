"""A folder of images, read as the frames of a video."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from pathlib import Path

import numpy.typing as npt

from storm_edge.runtime.errors import VideoError
from storm_edge.runtime.video.container import VideoFile
from storm_edge.runtime.video.listing import frame_times
from storm_edge.runtime.video.opening import check_file, unreadable
from storm_edge.runtime.video.resizing import Pixels, Resizer
from storm_edge.runtime.video.sampling import TOLERANCE, Shot

IMAGES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif")


class FrameFolder:
    """The images of a folder in natural order (frame9 before frame10), each decoded when it is needed."""

    def __init__(self, path: Path, size: int, timestamps: npt.ArrayLike | None) -> None:
        self._path, self._size = path, size
        try:
            self._images = sorted((p for p in path.iterdir() if is_image(p)), key=natural)
        except OSError as error:
            raise VideoError(f"cannot read {path}: {error.strerror}; check its permissions.") from error
        for image in self._images:  # a pipe or a device among them is named before anything is decoded
            check_file(image)
        if not self._images:
            raise VideoError(f"the folder {path} holds no images ({' '.join(IMAGES)}): name a video or their folder.")
        self._times = frame_times(len(self._images), timestamps)

    def shots(self) -> Iterator[Shot[Pixels]]:
        """All images in order, upright and of the model's size."""
        return self._from(0)

    def span(self) -> tuple[float, float]:
        """When the first and the last image appear."""
        return self._times[0], self._times[-1]

    def skip(self, now: float, time: float) -> Iterator[Shot[Pixels]] | None:
        """What is shown at `time` and follows; None if that is what is shown `now`."""
        place = bisect_right(self._times, time + TOLERANCE) - 1
        return self._from(place) if self._times[place] > now else None

    def _from(self, place: int) -> Iterator[Shot[Pixels]]:
        shown = zip(self._times[place:], self._images[place:], strict=True)
        return (Shot(t, read_image(p, self._size)) for t, p in shown)

    def __str__(self) -> str:
        return str(self._path)


def read_image(path: Path, size: int) -> Pixels:
    """An image upright and of the model's size; raises VideoError."""
    with VideoFile(path) as image:
        shot = next(image.shots(), None)
        if shot is None:
            raise unreadable(path)
        # A resizer for every image: each has an orientation of its own.
        return Resizer(size)(shot.frame)


def is_image(path: Path) -> bool:
    """Whether a folder's entry is taken for a picture, by its name."""
    return path.suffix.lower() in IMAGES and not path.name.startswith(".") and not path.is_dir()


def natural(path: Path) -> tuple[list[tuple[int, str]], str]:
    """What sorts frame9 before frame10."""
    pieces = re.split(r"([0-9]+)", path.name.lower())
    # Text and numbers alternate, so that only like is compared with like.
    return [(int(piece), "") if i % 2 else (0, piece) for i, piece in enumerate(pieces)], path.name

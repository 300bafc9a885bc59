"""A live source at the pace of the model: frames that are due, at the model's size, whatever happens to the source."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from storm_edge.runtime.errors import VideoError
from storm_edge.runtime.video.live.base import LiveSource
from storm_edge.runtime.video.live.pictures import PictureMaker
from storm_edge.runtime.video.reading import rate
from storm_edge.runtime.video.resizing import Pixels, Resizer
from storm_edge.runtime.video.sampling import TOLERANCE, Shot

_FIRST_WAIT, _LONGEST_WAIT = 0.1, 1.0  # seconds before a lost source is opened again; doubled each time
_DISORDER = 1.0  # seconds by which time may fall back without starting anew


@dataclass(frozen=True)
class LiveFrame(Shot[Pixels]):
    """A frame at the model's size, and where pictures are made, one of what it was made of."""

    picture: Pixels | None = None


class Following:
    """The frames of a source at `fps`; a lost source is opened again. `lost` says why no frame comes, "" where some do.

    With `picture_pixels` each has a picture of at most so many.
    Timestamps never fall back: where the source's own do, or it comes back with a clock of its own, they go on by what
    has passed here. Raises UsageError.
    """

    def __init__(self, source: LiveSource, size: int, fps: float, picture_pixels: int = 0) -> None:
        self._source, self._size, self._picture_pixels = source, size, picture_pixels
        self._pace = _Pace(1 / rate(fps))
        self.stopped = threading.Event()
        self.lost = f"no frame of {source} has come yet"

    def shots(self) -> Iterator[LiveFrame]:
        """Frames uint8 [size, size, 3] with ascending times, until `stopped` or the end of what does not return.

        Raises VideoError where such a source fails, and what an iterator raises.
        """
        wait = _FIRST_WAIT
        while not self.stopped.is_set():
            try:
                resize, picture = Resizer(self._size), PictureMaker(self._picture_pixels)
                self._pace.restart()
                for shot in self._source.shots(self.stopped):
                    moment = self._pace.due(shot.time)
                    if moment is not None:
                        yield LiveFrame(
                            moment, resize(shot.frame), picture(shot.frame) if self._picture_pixels else None
                        )
                        self.lost, wait = "", _FIRST_WAIT
                if not self._source.returns:
                    return
                self.lost = f"{self._source} has ended"
            except VideoError as error:
                self.lost = str(error)
                if not self._source.returns:
                    raise
            self.stopped.wait(wait)
            wait = min(2 * wait, _LONGEST_WAIT)


class _Pace:
    """Which frames are due, and when they are shown on a clock that only goes forward."""

    def __init__(self, period: float) -> None:
        self._period = period
        self._shift = 0.0  # from the source's time to this clock's
        self._origin: float | None = None
        self._latest, self._came = 0.0, 0.0  # when the last frame was shown, and when it came
        self._next = 0.0
        self._opened = False  # anew, and no frame came since

    def restart(self) -> None:
        """The source was opened, maybe with a clock of its own."""
        self._opened = True

    def due(self, shown: float) -> float | None:
        """The time of a frame that the source shows at `shown`; None if it is too early for another one."""
        now, moment = time.monotonic(), shown + self._shift
        if self._origin is None:
            self._origin = self._next = moment
        elif moment < self._latest - (0 if self._opened else _DISORDER):
            moment = self._latest + now - self._came
            self._shift = moment - shown
        elif moment <= self._latest:
            return None
        self._opened = False
        self._latest, self._came = moment, now
        if moment < self._next - TOLERANCE:
            return None
        periods = math.floor((moment + TOLERANCE - self._origin) / self._period) + 1
        self._next = self._origin + periods * self._period
        return moment

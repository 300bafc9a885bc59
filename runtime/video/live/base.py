"""What every live source can do."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Protocol, runtime_checkable

from av import VideoFrame

from storm_edge.runtime.video.resizing import Pixels
from storm_edge.runtime.video.sampling import Shot

LiveShots = Iterator[Shot[VideoFrame]] | Iterator[Shot[Pixels]]


@runtime_checkable
class LiveSource(Protocol):
    """Something that shows frames as they happen. `returns`: after its end it may be opened again."""

    @property
    def returns(self) -> bool:
        """Whether it may come back."""

    def shots(self, stopped: threading.Event) -> LiveShots:
        """The frames from now on, each as soon as it is there, until the end or until `stopped`.

        Raises VideoError where the source cannot be opened or breaks off.
        """

"""Scenes without end, one after another, shown in real time: a camera for `storm watch`."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import lru_cache
from typing import IO

import av
import numpy as np
import numpy.typing as npt

from storm_edge.demo.dataset import Sample, make_sample
from storm_edge.demo.questions import NUMBERS

QUESTION = "How many objects are there?"
SCENE, SIZE = 32, 128  # frames of a scene, and pixels of its sides
SHOWN = 4  # times that the stream shows each frame of a scene, as a camera faster than what happens would


class SceneStream:
    """The scenes of the seeds from `first` on; frame n of them is shown from n / fps seconds on."""

    def __init__(self, first: int = 0, fps: float = 4) -> None:
        self._first, self.fps = first, fps
        self._sample: Callable[[int], Sample] = lru_cache(maxsize=2)(self._made)

    def frame(self, number: int) -> npt.NDArray[np.uint8]:
        """Frame `number` of all scenes, uint8 [SIZE, SIZE, 3]."""
        frame: npt.NDArray[np.uint8] = self._sample(number // SCENE).frames[number % SCENE]
        return frame

    def number(self, time: float) -> int:
        """Which frame is shown at a time of the stream."""
        return int(time * self.fps + 0.01)

    def truth(self, oldest: float, newest: float) -> str:
        """The answer to QUESTION about what was shown from one second to another; "" where that was of two scenes, or
        nothing has appeared yet: no clip of the demo's training is empty.
        """
        first, last = self.number(oldest), self.number(newest)
        scene = last // SCENE
        if first // SCENE != scene:
            return ""
        shown = slice(first % SCENE, last % SCENE + 1)
        number = sum(bool(thing.visible[shown].any()) for thing in self._sample(scene).scene.things)
        return NUMBERS[number] if number else ""

    def play(self, pipe: IO[bytes], frames: int | None = None, stopped: threading.Event | None = None) -> None:
        """Write so many frames, or those until `stopped`, as MPEG-TS whose times begin at 0.

        Raises OSError where nobody reads any more.
        """
        # Nothing is kept back, neither by the encoder nor by the muxer nor by who takes them apart again.
        options = {"mpegts_copyts": "1", "flush_packets": "1", "max_delay": "0", "omit_video_pes_length": "0"}
        coding = {"tune": "zerolatency", "preset": "ultrafast", "crf": "16", "g": str(round(SHOWN * self.fps))}
        rate = SHOWN * Fraction(self.fps).limit_denominator(1000)
        with av.open(pipe, "w", format="mpegts", container_options=options) as container:
            stream = container.add_stream("libx264", rate=rate, options=coding)
            stream.width = stream.height = SIZE
            stream.pix_fmt = "yuv420p"
            for number in _paced(float(rate), None if frames is None else SHOWN * frames, stopped or threading.Event()):
                pixels = np.ascontiguousarray(self.frame(number // SHOWN))
                picture = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                picture.pts, picture.time_base = number, 1 / rate
                container.mux(stream.encode(picture))
            container.mux(stream.encode())

    def _made(self, scene: int) -> Sample:
        return make_sample(self._first + scene, frames=SCENE, size=SIZE, kind="count")


def _paced(rate: float, count: int | None, stopped: threading.Event) -> Iterator[int]:
    """0, 1, 2 and so on, each when its time has come."""
    begun = time.monotonic()
    for number in itertools.count() if count is None else range(count):
        if stopped.wait(max(begun + number / rate - time.monotonic(), 0)):
            return
        yield number

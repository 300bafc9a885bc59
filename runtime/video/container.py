"""One video file: its frames in order, its span, and its keyframes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction
from itertools import chain, dropwhile
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import av
from av import VideoFrame
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from storm_edge.runtime.video.opening import open_video, unreadable
from storm_edge.runtime.video.sampling import TOLERANCE, Shot
from storm_edge.runtime.video.thinning import Thinning

# Their indexes say where keyframes are, and their packets when they are shown: only these are searched.
_INDEXED = {"mov", "matroska"}
# Their packets say only when they are decoded; when they are shown, libav guesses, a frame off where order changes.
_UNDATED = {"avi"}
# Over a shorter stretch, decoding on is cheaper than a search.
_WORTH_A_SEARCH = 0.25  # seconds
# Timestamps that fall back by more start anew (joined recordings); by less, they are disorder.
_RESTART = 1.0  # seconds


class _Keyframe(NamedTuple):
    time: float  # when it is shown, in seconds
    shown: int  # the same in ticks
    decoded: int | None  # in ticks
    target: int  # what to seek to get there, in ticks
    backward: bool  # whether it is the last one before that, or the first one after


class VideoFile:
    """The pictures of one file; a context manager. Raises VideoError if the file is missing or holds no pictures."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._scout: VideoFile | None = None
        self._used = False  # whether the reading position has moved
        self._goal: float | None = None  # in ticks: of what is shown before it, only the last frame is wanted
        self._end: Shot[VideoFrame] | None = None  # the last frame
        self._snapped: Shot[VideoFrame] | None = None  # the last keyframe that was given for a time near it
        self._file, self._container, self._stream = open_video(path)
        formats = set(self._container.format.name.split(","))
        self._indexed, self._undated = bool(_INDEXED & formats), bool(_UNDATED & formats)
        self._tick = self._stream.time_base or Fraction(1, 1000)
        self._rate = self._stream.average_rate or Fraction(25)

    def __enter__(self) -> VideoFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __str__(self) -> str:
        return str(self._path)

    def close(self) -> None:
        """Closes the file; frames already read stay valid."""
        if self._scout is not None:
            self._scout.close()
        self._container.close()
        self._file.close()

    def shots(self) -> Iterator[Shot[VideoFrame]]:
        """Every frame from the first on, in order of presentation; what is damaged is left out."""
        if self._used:  # opened anew, because only some formats can be sought back to their very beginning
            self._container.close()
            self._file.close()
            self._file, self._container, self._stream = open_video(self._path)
            self._used = False
        return self._decode()

    def span(self) -> tuple[float, float]:
        """When the first and the last frame appear, in seconds.

        Found by decoding, from the last keyframe on where the format has an index: durations in headers may be missing,
        and they are wrong for files cut short.
        """
        first = next(self.shots(), None)
        if first is None:
            raise unreadable(self)
        self._goal = math.inf
        shots = self._last_group() or self.shots()
        self._end = first
        for shot in shots:
            self._end = shot
        self._goal = None
        return first.time, self._end.time

    def skip(self, now: float, time: float) -> Iterator[Shot[VideoFrame]] | None:
        """The frames from the last keyframe at or before `time` on; None if none is later than `now`.

        After it all frames are those of a full decode: what precedes the keyframe in presentation but follows it in the
        file (open groups of pictures) may refer to frames that were skipped, and is dropped. From then on frames before
        the one shown at `time` may be left out.
        """
        if self._end is not None and now < self._end.time <= time + TOLERANCE:
            return iter([self._end])
        self._goal = self._ticks(time)
        if not self._indexed or time - now < _WORTH_A_SEARCH:
            return None
        keyframe, _ = self._scouting()._keyframes(self._goal)
        if keyframe is None or keyframe.time <= now:
            return None
        shots = self._decode_from(keyframe, time)
        if shots is None:  # not a frame to start from, whatever the index says: read in order from here on
            self._indexed = False
            return dropwhile(lambda shot: shot.time <= now, self.shots())
        return shots

    def near(self, time: float, within: float) -> Shot[VideoFrame] | None:
        """The keyframe nearest to `time`, decoded alone; None if the index knows none within so many seconds."""
        if not self._indexed:
            return None
        scout = self._scouting()
        before, after = scout._keyframes(self._ticks(time))
        keyframe = min((k for k in (before, after) if k), key=lambda k: abs(k.time - time), default=None)
        if keyframe is None or abs(keyframe.time - time) > within:
            return None
        if self._snapped is None or self._snapped.time != keyframe.time:
            self._snapped = scout._alone(keyframe)
        return self._snapped

    @property
    def indexed(self) -> bool:
        """Whether keyframes can be found without reading up to them."""
        return self._indexed

    def _scouting(self) -> VideoFile:
        """The same file with a reading position of its own."""
        if self._scout is None:
            self._scout = VideoFile(self._path)
        return self._scout

    def _last_group(self) -> Iterator[Shot[VideoFrame]] | None:
        """The frames from the last keyframe on; None if the index cannot tell."""
        if not self._indexed:
            return None
        duration = self._stream.duration or (self._container.duration or 0) * Fraction(1, av.time_base) / self._tick
        keyframe, _ = self._keyframes((self._stream.start_time or 0) + math.ceil(duration))
        return keyframe and self._decode_from(keyframe, keyframe.time)

    def _keyframes(self, ticks: int) -> tuple[_Keyframe | None, _Keyframe | None]:
        """The last keyframe shown by `ticks` and the first after it, if the index knows; moves the reading position."""
        before = self._keyframe(ticks)
        if before is None or before.shown <= ticks:
            return before, self._keyframe(ticks + 1, backward=False)
        # The index sorts by decoding time: this one is decoded by then but shown later, so take the one before.
        after = before
        before = None if after.decoded is None else self._keyframe(after.decoded - 1)
        return (before if before is not None and before.shown <= ticks else None), after

    def _keyframe(self, target: int, *, backward: bool = True) -> _Keyframe | None:
        self._used = True
        try:
            self._container.seek(target, stream=self._stream, backward=backward)
            packet = next(self._container.demux(self._stream))
        except (FFmpegError, StopIteration):
            return None
        if packet.pts is None or not packet.is_keyframe:
            return None
        return _Keyframe(self._seconds(packet.pts), packet.pts, packet.dts, target, backward)

    def _decode_from(self, keyframe: _Keyframe, time: float) -> Iterator[Shot[VideoFrame]] | None:
        """The frames from a keyframe on; None if the first one is damaged, or shown after `time` only."""
        self._used = True
        try:
            self._container.seek(keyframe.target, stream=self._stream, backward=keyframe.backward)
        except FFmpegError:
            return None
        shots = dropwhile(lambda shot: shot.time < keyframe.time, self._decode())
        head = next(shots, None)
        if head is None or head.time > time + TOLERANCE or head.frame.is_corrupt:
            return None
        return chain([head], shots)

    def _alone(self, keyframe: _Keyframe) -> Shot[VideoFrame] | None:
        """A keyframe without what follows; None if that is not enough to decode it."""
        self._used = True
        with suppress(FFmpegError, StopIteration, MemoryError):
            self._container.seek(keyframe.target, stream=self._stream, backward=keyframe.backward)
            packet = next(self._container.demux(self._stream))
            self._stream.codec_context.skip_frame = "DEFAULT"
            for frame in (*self._stream.decode(packet), *self._stream.decode(None)):
                if frame.pts == keyframe.shown and not frame.is_corrupt:
                    return Shot(keyframe.time, frame)
        return None

    def _decode(self) -> Iterator[Shot[VideoFrame]]:
        """The frames from the reading position on; those without a timestamp follow at the stream's average rate."""
        self._used = True
        gap = float(1 / self._rate)
        latest, shift = None, 0.0
        thinning = Thinning(self._stream.codec_context)
        for packet in self._packets():
            if packet is not None:
                thinning.look(packet, self._goal)
            for frame in self._pictures(packet):
                follows = 0.0 if latest is None else latest + gap
                ticks = frame.dts if self._undated else frame.pts
                time = follows if ticks is None else self._seconds(ticks) + shift
                if latest is not None and time < latest - _RESTART:
                    shift += follows - time
                    time = follows
                latest = time if latest is None else max(time, latest)
                yield Shot(latest, frame)

    def _pictures(self, packet: Packet[VideoStream] | None) -> list[VideoFrame]:
        """What comes out of the decoder for one more packet, in order of presentation; None empties it."""
        with suppress(FFmpegError, MemoryError):
            return self._stream.decode(packet)
        return []

    def _packets(self) -> Iterator[Packet[VideoStream] | None]:
        """The stream's packets, then None, which empties the decoder; a file cut short just ends earlier."""
        # IndexError: PyAV at the end of a file in which more streams turned up on the way.
        with suppress(FFmpegError, IndexError):
            for packet in self._container.demux(self._stream):
                # A packet cut short decodes to a frame that is partly noise; one without bytes is demux's own end mark.
                if packet.size and not packet.is_corrupt:
                    yield packet
        yield None

    def _ticks(self, time: float) -> int:
        """The last tick by which what is shown at `time` has appeared."""
        return math.floor((time + TOLERANCE) / self._tick)

    def _seconds(self, ticks: int) -> float:
        return float(ticks * self._tick)

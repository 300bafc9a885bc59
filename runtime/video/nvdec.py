"""One video file by NVDEC: PyAV takes it apart and says when its pictures are shown, the GPU decodes them.

Written from the signatures of PyNvVideoCodec 2.2.4 and NVIDIA's Video Codec SDK; no GPU of ours has run it yet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from av import VideoFrame
from av.bitstream import BitStreamFilterContext
from av.error import FFmpegError
from av.packet import Packet
from av.video.stream import VideoStream

from storm_edge.runtime.errors import EngineError, StormError, VideoError
from storm_edge.runtime.machine.packages import import_pynvvideocodec
from storm_edge.runtime.video.bicubic import Matrix, decoded_colours
from storm_edge.runtime.video.container import VideoFile
from storm_edge.runtime.video.opening import unreadable
from storm_edge.runtime.video.resizing import DisplayMatrix, display_matrix
from storm_edge.runtime.video.sampling import Shot

# Codecs by libav's names, PyNvVideoCodec's names for them, and what makes of a container's packets what NVDEC's parser
# takes: start codes, and parameter sets before every keyframe, so that decoding can begin at each.
_ANNEX_B = "{}_mp4toannexb,dump_extra=freq=keyframe"
_CODECS = {
    "h264": ("H264", _ANNEX_B.format("h264")),
    "hevc": ("HEVC", _ANNEX_B.format("hevc")),
}
_FULL_RANGE = 2  # AVCOL_RANGE_JPEG
_INSTEAD = "leave out the decoder, so that the processor decodes it"


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded picture in the GPU's memory, NV12: uint8 [H * 3 / 2, W], luma, then U and V in turn at half size."""

    planes: Any
    pts: int  # in ticks
    dts: int | None = None
    is_corrupt: bool = False


@dataclass(frozen=True)
class Look:
    """How the pictures of a file are shown: `yuv @ matrix + offset` is RGB, see `upright` for the display matrix."""

    matrix: Matrix  # (3, 3)
    offset: Matrix  # (3,)
    display: DisplayMatrix


class NvdecFile(VideoFile):
    """A `VideoFile` whose shots hold a `Picture` each, at the same times; `look` says how these are shown.

    `stream` is the cudaStream_t in which pictures are written, `keep` copies in that stream what has DLPack's protocol:
    the decoder uses its memory again. Not for `near`.
    Raises VideoError if the file cannot be read or not by NVDEC, EngineError if PyNvVideoCodec cannot be used.
    """

    def __init__(self, path: Path, stream: int, keep: Callable[[Any], Any]) -> None:
        super().__init__(path)
        try:
            self.look = self._first_look(path)
            name, words = self._codec()
            self._filter = BitStreamFilterContext(words, self._stream)
            self._nvc = import_pynvvideocodec()
            codec = getattr(self._nvc.cudaVideoCodec, name)
            self._decoder: Any = self._asked(
                self._nvc.CreateDecoder, gpuid=0, codec=codec, cudastream=stream, usedevicememory=True
            )
        except BaseException:
            self.close()
            raise
        self._keep = keep
        self._fed = False  # whether the decoder may still hold pictures
        self._hidden: set[int] = set()  # when pictures are shown that an edit list leaves out

    def close(self) -> None:
        """Closes the file and the decoder; pictures stay valid."""
        self._decoder = None
        super().close()

    def _codec(self) -> tuple[str, str]:
        name = self._stream.codec_context.codec.canonical_name
        if name not in _CODECS:
            raise VideoError(f"{self} is {name}, and NVDEC is used for {', '.join(_CODECS)}: {_INSTEAD}.")
        if self._undated:
            raise VideoError(f"{self} does not say when its pictures are shown, which NVDEC is to be told: {_INSTEAD}.")
        return _CODECS[name]

    def _first_look(self, path: Path) -> Look:
        # libav decodes one frame, because the file's headers need not say what the stream says.
        with VideoFile(path) as video:
            head = next(video.shots(), None)
        if head is None:
            raise unreadable(self)
        frame = head.frame
        if (
            frame.format.name not in ("yuv420p", "yuvj420p")
            or frame.interlaced_frame
            or (frame.width | frame.height) & 1
        ):
            kind = (
                f"{frame.width} x {frame.height} {'interlaced ' if frame.interlaced_frame else ''}{frame.format.name}"
            )
            raise VideoError(f"{self} is {kind}, and NVDEC is used for even sides of progressive yuv420p: {_INSTEAD}.")
        full = frame.format.name == "yuvj420p" or int(frame.color_range) == _FULL_RANGE
        colours = decoded_colours(int(frame.colorspace), full)
        if colours is None:
            raise VideoError(
                f"{self} has colours of an unusual kind (AVColorSpace {int(frame.colorspace)}): {_INSTEAD}."
            )
        return Look(*colours, display_matrix(frame))

    def _decode(self) -> Iterator[Shot[VideoFrame]]:
        self._emptied()  # of what a pass that was broken off has left
        self._filter.flush()
        return super()._decode()

    def _pictures(self, packet: Packet[VideoStream] | None) -> list[Any]:
        if packet is None:
            return self._emptied()
        if packet.pts is None:
            raise VideoError(f"{self} has packets that do not say when they are shown: {_INSTEAD}.")
        if packet.is_discard:
            self._hidden.add(packet.pts)
        pictures: list[Picture] = []
        with suppress(FFmpegError):  # a damaged packet is left out
            for filtered in self._filter.filter(packet):
                if filtered.pts is not None:
                    pictures += self._fed_with(bytes(filtered), filtered.pts)
        return pictures

    def _emptied(self) -> list[Picture]:
        """The pictures that the decoder still holds."""
        return self._fed_with(b"", 0) if self._fed else []

    def _fed_with(self, data: bytes, pts: int) -> list[Picture]:
        """What the decoder gives for one more packet; one without bytes is the end of the stream."""
        payload = np.frombuffer(data, np.uint8)  # stays until the decoder has read it
        packet = self._nvc.PacketData()
        packet.bsl_data, packet.bsl, packet.pts = payload.ctypes.data if data else 0, len(data), pts
        frames = self._asked(self._decoder.Decode, packet)
        self._fed = bool(data)
        pictures = [Picture(self._keep(frame), frame.getPTS()) for frame in frames]
        return [picture for picture in pictures if picture.pts not in self._hidden]

    def _asked(self, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except StormError:
            raise
        except Exception as error:  # PyNvVideoCodec's own are derived from nothing narrower
            line = " ".join(str(error).split())
            if isinstance(error, self._nvc.PyNvVCExceptionUnsupported):
                raise VideoError(f"this GPU cannot decode {self} ({line}): {_INSTEAD}.") from error
            raise EngineError(f"NVDEC failed on {self} ({line}): see `storm doctor`, or {_INSTEAD}.") from error

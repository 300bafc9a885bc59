"""Passing over frames that nobody will see and that no other frame is made from."""

from __future__ import annotations

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

# Here libav's NONREF leaves out what nothing refers to, and nothing else.
_SUPPORTED = {"h264", "hevc"}


class Thinning:
    """One pass over a stream's packets, in file order; tells the decoder before each whether its picture is wanted.

    A picture is passed over where one that is shown later, but not after the goal, was met already: so it is not what
    is shown at the goal. Where timestamps are missing or fall back, everything is decoded from there on.
    """

    def __init__(self, context: VideoCodecContext) -> None:
        self._context = context
        self._able = context.codec.name in _SUPPORTED and not has_layers(context)
        self._decoded: int | None = None  # when the last packet is decoded
        self._shown: int | None = None  # when the last picture up to the goal is shown

    def look(self, packet: Packet[VideoStream], goal: float | None) -> None:
        """To be called before a packet is decoded; `goal` in ticks, None: every frame is wanted."""
        shown, decoded = packet.pts, packet.dts
        if shown is None or (decoded is not None and self._decoded is not None and decoded < self._decoded):
            self._able = False
        self._decoded = self._decoded if decoded is None else decoded
        if not self._able or shown is None or goal is None:
            self._context.skip_frame = "DEFAULT"
            return
        self._context.skip_frame = "NONREF" if self._shown is not None and shown < self._shown else "DEFAULT"
        if shown <= goal:
            self._shown = shown if self._shown is None else max(self._shown, shown)


def has_layers(context: VideoCodecContext) -> bool:
    """Whether HEVC may have temporal sub-layers: pictures that nothing of their own layer refers to are then needed.

    Source: ISO/IEC 14496-15 8.3.2 (hvcC), ITU-T H.265 7.3.2.1 (video parameter set). True where neither says.
    """
    if context.codec.name != "hevc":
        return False
    data = context.extradata or b""
    if data[:1] == b"\x01":
        return len(data) < 22 or data[21] >> 3 & 7 != 1  # numTemporalLayers
    at = data.find(b"\x00\x00\x01\x40\x01")  # the header of a video parameter set
    return at < 0 or len(data) < at + 7 or data[at + 6] >> 1 & 7 != 0  # vps_max_sub_layers_minus1

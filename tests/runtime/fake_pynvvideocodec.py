"""PyNvVideoCodec for tests: the names of 2.2.4 that the product uses, with libav behind them.

It takes what NVDEC's parser takes (start codes, parameter sets in the stream), gives NV12 in order of presentation and
late, empties itself for a packet without bytes, and writes pictures in its stream, into memory that it uses again for
the next packet.
"""

from __future__ import annotations

import ctypes
from fractions import Fraction
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import fake_cupy
import numpy as np

LIBAV = {"H264": "h264", "HEVC": "hevc"}


class PacketData:
    """Numbers only, 0 by default, and no other names."""

    __slots__ = ("bsl", "bsl_data", "pts")

    def __init__(self) -> None:
        self.bsl = self.bsl_data = self.pts = 0


class PyNvVCException(Exception):
    """The package's."""


class PyNvVCExceptionUnsupported(Exception):
    """The package's, for what a GPU cannot."""


class DecodedFrame:
    """NV12 in the decoder's memory."""

    def __init__(self, surface: fake_cupy.Array, pts: int) -> None:
        self._surface, self._pts = surface, pts

    def getPTS(self) -> int:
        """The time that came with its packet."""
        return self._pts

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, 0

    def __dlpack__(self, stream: Any = 0) -> fake_cupy.Array:
        return self._surface


class PyNvDecoder:
    """`fed` are the times of its packets, None for the end of a stream."""

    def __init__(self, gpu: fake_cupy.Gpu, codec: str, stream: fake_cupy.Stream) -> None:
        self._gpu, self._codec, self._stream = gpu, codec, stream
        self._surfaces: list[fake_cupy.Array] = []
        self.fed: list[int | None] = []
        self.failure: Exception | None = None
        self._begin()

    def _begin(self) -> None:
        self._libav: Any = av.CodecContext.create(LIBAV[self._codec], "r")
        self._libav.thread_count = 1

    def Decode(self, data: PacketData) -> list[DecodedFrame]:
        """What comes out for a packet."""
        if self.failure:
            raise self.failure
        self.fed.append(data.pts if data.bsl else None)
        if data.bsl:
            payload = ctypes.string_at(data.bsl_data, data.bsl)
            if self._codec in ("H264", "HEVC"):
                assert payload[:4] in (b"\0\0\0\1",) or payload[:3] == b"\0\0\1", "no start code"
            packet = av.Packet(payload)
            packet.pts, packet.time_base = data.pts, Fraction(1, 1000)
            frames = self._libav.decode(packet)
        else:
            frames = self._libav.decode(None)
            self._begin()
        return [self._given(place, frame) for place, frame in enumerate(frames)]

    def _given(self, place: int, frame: Any) -> DecodedFrame:
        nv12 = frame.reformat(format="nv12").to_ndarray()
        with self._stream:
            if len(self._surfaces) == place:
                self._surfaces.append(fake_cupy.Array.new(self._gpu, nv12.shape, "uint8"))
            surface = self._surfaces[place]
            self._gpu.launch(lambda: np.copyto(surface.there, nv12))
        return DecodedFrame(surface, frame.pts)


def pynvvideocodec_of(gpu: fake_cupy.Gpu) -> ModuleType:
    """The module `PyNvVideoCodec` on a machine; `decoders` are those that were made."""
    module: Any = ModuleType("PyNvVideoCodec")

    def create(gpuid: int = 0, codec: str = "H264", cudastream: int = 0, usedevicememory: bool = False) -> PyNvDecoder:
        assert gpuid == 0
        assert usedevicememory
        module.decoders.append(PyNvDecoder(gpu, codec, gpu.stream(cudastream)))
        return module.decoders[-1]

    module.__dict__.update(
        decoders=[],
        CreateDecoder=create,
        PacketData=PacketData,
        PyNvVCException=PyNvVCException,
        PyNvVCExceptionUnsupported=PyNvVCExceptionUnsupported,
        cudaVideoCodec=SimpleNamespace(**{name: name for name in LIBAV}),
    )
    return module

"""What `storm watch --record` keeps of an answer: the clip, a contact sheet, and the line of JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.error import FFmpegError

from storm_edge.runtime.errors import UsageError
from storm_edge.runtime.video.encode import encode_video
from storm_edge.runtime.video.live.pictures import PictureMaker
from storm_edge.runtime.video.resizing import Pixels

if TYPE_CHECKING:
    from storm_edge.runtime.answer.watch import Moment

_COLUMNS, _MOST = 8, 64  # pictures of a sheet: in a row, and at all
_SMALL = 160 * 120  # pixels of one of them


class Recorder:
    """Keeps answers in a folder, which is made."""

    def __init__(self, folder: Path) -> None:
        """Raises UsageError where nothing can be kept there."""
        self._folder = folder
        probe = folder / ".storm-watch"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            raise UsageError(f"cannot record in {folder} ({error.strerror}): name a folder to write to.") from error

    def keep(self, line: dict[str, object], moment: Moment) -> None:
        """Write NAME.mp4, NAME.png and NAME.json, which comes last; NAME is the time of day. Raises UsageError."""
        name = str(line["wall_time"]).replace("+00:00", "Z").replace(":", "-")
        pictures = _alike(moment.pictures)
        span = float(moment.timestamps[-1] - moment.timestamps[0])
        fps = min(max((len(pictures) - 1) / span, 0.1), 1000) if span > 0 else 1
        encode_video(self._folder / f"{name}.mp4", pictures, fps=fps, options={"preset": "veryfast"})
        self._write(f"{name}.png", _png(_sheet(pictures)))
        self._write(f"{name}.json", json.dumps(line).encode() + b"\n")

    def _write(self, name: str, content: bytes) -> None:
        unfinished = self._folder / f".{name}.tmp"
        try:
            unfinished.write_bytes(content)
            unfinished.replace(self._folder / name)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            raise UsageError(f"cannot write {self._folder / name} ({error.strerror}): make room there.") from error


def _alike(pictures: tuple[Pixels, ...]) -> list[Pixels]:
    """All of the last one's size: a source may have changed its resolution."""
    height, width = pictures[-1].shape[:2]
    return [p if p.shape[:2] == (height, width) else _scaled(p, width, height) for p in pictures]


def _scaled(picture: Pixels, width: int, height: int) -> Pixels:
    frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(width, height)
    return np.asarray(frame.to_ndarray(), dtype=np.uint8)


def _sheet(pictures: list[Pixels]) -> Pixels:
    """At most 64 of them, spread evenly, in rows of 8, small."""
    chosen = np.unique(np.linspace(0, len(pictures) - 1, min(len(pictures), _MOST)).round().astype(int))
    reduce = PictureMaker(_SMALL)
    small = [reduce(pictures[at]) for at in chosen]
    height, width = small[0].shape[:2]
    rows, columns = -(-len(small) // _COLUMNS), min(len(small), _COLUMNS)
    sheet = np.zeros((rows, height, columns, width, 3), np.uint8)
    for at, picture in enumerate(small):
        sheet[at // _COLUMNS, :, at % _COLUMNS] = picture
    return sheet.reshape(rows * height, columns * width, 3)


def _png(pixels: Pixels) -> bytes:
    codec = av.CodecContext.create("png", "w")
    codec.height, codec.width = pixels.shape[:2]
    codec.pix_fmt, codec.time_base = "rgb24", 1  # type: ignore[assignment]
    try:
        packets = codec.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24"))
        return b"".join(bytes(packet) for packet in (*packets, *codec.encode(None)))
    except FFmpegError as error:
        raise UsageError(f"cannot draw a sheet ({error.strerror}): leave --record out.") from error
